"""Poisson distribution: log-probability, gradient, fit, fused softmax head."""

from .fitting import PoissonFit, fit
from .head import softmax_head
from .pmf import gradient, logpmf

__all__ = ["PoissonFit", "fit", "gradient", "logpmf", "softmax_head"]
