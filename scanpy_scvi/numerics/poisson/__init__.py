"""Poisson distribution: fused softmax head."""

from .head import softmax_head

__all__ = ["softmax_head"]
