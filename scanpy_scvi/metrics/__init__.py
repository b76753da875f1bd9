"""Scores on arrays: no AnnData, no torch."""

from .bound import Iwelbo, iwelbo
from .effects import EffectFidelity, ate
from .generation import Generation, GenerationScores, generation
from .integration import batch_mixing, ideal_batch_mixing, label_score
from .matching import Match, latent_r2, mcc
from .response import R2, ResponseR2, response_r2
from .targets import TargetScores, target_auprc, target_f1

__all__ = [
    "R2",
    "EffectFidelity",
    "Generation",
    "GenerationScores",
    "Iwelbo",
    "Match",
    "ResponseR2",
    "TargetScores",
    "ate",
    "batch_mixing",
    "generation",
    "ideal_batch_mixing",
    "iwelbo",
    "label_score",
    "latent_r2",
    "mcc",
    "response_r2",
    "target_auprc",
    "target_f1",
]
