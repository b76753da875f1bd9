"""Poisson distribution: log-probability, gradient, fused softmax head."""

from .head import softmax_head
from .pmf import gradient, logpmf

__all__ = ["gradient", "logpmf", "softmax_head"]
