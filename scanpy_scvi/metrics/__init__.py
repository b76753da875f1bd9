"""Scores on arrays: no AnnData, no torch."""

from .integration import batch_mixing, ideal_batch_mixing, label_score

__all__ = ["batch_mixing", "ideal_batch_mixing", "label_score"]
