"""Zero-inflated negative binomial: log-probability, gradient, fused softmax head."""

from .head import softmax_head
from .pmf import ZINBGradient, gradient, logpmf

__all__ = ["ZINBGradient", "gradient", "logpmf", "softmax_head"]
