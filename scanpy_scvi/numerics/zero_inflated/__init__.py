"""Zero-inflated negative binomial: log-probability, gradient, fit, fused softmax head."""

from .fitting import ZINBFit, fit
from .head import softmax_head
from .pmf import ZINBGradient, gradient, logpmf

__all__ = ["ZINBFit", "ZINBGradient", "fit", "gradient", "logpmf", "softmax_head"]
