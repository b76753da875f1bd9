"""Negative binomial with mean μ and inverse dispersion θ: log-probability, gradient, fused softmax head."""

from .head import softmax_head
from .pmf import NBGradient, gradient, logpmf

__all__ = ["NBGradient", "gradient", "logpmf", "softmax_head"]
