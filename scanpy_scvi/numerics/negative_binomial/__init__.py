"""Negative binomial with mean μ and inverse dispersion θ: log-probability, gradient, fit, fused softmax head."""

from .fitting import THETA_MAX, THETA_MIN, NBFit, fit
from .head import softmax_head
from .pmf import NBGradient, gradient, logpmf
from .root_mean import root_mean

__all__ = ["THETA_MAX", "THETA_MIN", "NBFit", "NBGradient", "fit", "gradient", "logpmf", "root_mean", "softmax_head"]
