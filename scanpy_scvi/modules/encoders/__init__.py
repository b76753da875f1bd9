"""Encoders: q(z | x, s)."""

from .base import Encoder, LatentPosterior
from .free import FreeEncoder
from .mlp import MLPEncoder

ENCODERS: dict[str, type[Encoder]] = {"free": FreeEncoder, "mlp": MLPEncoder}

__all__ = ["ENCODERS", "Encoder", "FreeEncoder", "LatentPosterior", "MLPEncoder"]
