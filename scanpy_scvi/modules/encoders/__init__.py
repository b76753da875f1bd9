"""Encoders: q(z | x, s)."""

from .base import Encoder, LatentPosterior
from .mlp import MLPEncoder

ENCODERS: dict[str, type[Encoder]] = {"mlp": MLPEncoder}

__all__ = ["ENCODERS", "Encoder", "LatentPosterior", "MLPEncoder"]
