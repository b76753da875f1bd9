"""Priors of z."""

from .base import Prior
from .normal import StandardNormal

PRIORS: dict[str, type[Prior]] = {"normal": StandardNormal}

__all__ = ["PRIORS", "Prior", "StandardNormal"]
