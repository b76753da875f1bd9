"""Priors of z."""

from .base import Prior
from .mixture import GaussianMixture
from .normal import StandardNormal

PRIORS: dict[str, type[Prior]] = {"mixture": GaussianMixture, "normal": StandardNormal}

__all__ = ["PRIORS", "GaussianMixture", "Prior", "StandardNormal"]
