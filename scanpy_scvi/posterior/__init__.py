"""What one can ask a fitted model: arrays in, arrays out."""

from .bound import HeldOutBound, held_out_bound
from .expression import ExpressionRequest, normalized_expression
from .latent import LatentMoments, latent_moments

__all__ = [
    "ExpressionRequest",
    "HeldOutBound",
    "LatentMoments",
    "held_out_bound",
    "latent_moments",
    "normalized_expression",
]
