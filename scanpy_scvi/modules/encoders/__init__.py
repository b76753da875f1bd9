"""Encoders: q(z | x, s)."""

from .base import Encoder, LatentPosterior
from .free import FreeEncoder
from .linear import LinearEncoder
from .mlp import MLPEncoder
from .recurrent import RecurrentEncoder

ENCODERS: dict[str, type[Encoder]] = {
    "free": FreeEncoder,
    "linear": LinearEncoder,
    "mlp": MLPEncoder,
    "recurrent": RecurrentEncoder,
}

__all__ = ["ENCODERS", "Encoder", "FreeEncoder", "LatentPosterior", "LinearEncoder", "MLPEncoder", "RecurrentEncoder"]
