"""Negative binomial with mean μ and inverse dispersion θ: fused softmax head."""

from .head import softmax_head

__all__ = ["softmax_head"]
