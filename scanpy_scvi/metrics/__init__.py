"""Scores on arrays: no AnnData, no torch."""

from .generation import Generation, GenerationScores, generation
from .integration import batch_mixing, ideal_batch_mixing, label_score

__all__ = ["Generation", "GenerationScores", "batch_mixing", "generation", "ideal_batch_mixing", "label_score"]
