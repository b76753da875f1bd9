"""Priors of z."""

from .base import Prior
from .flat import FlatPrior
from .mixture import GaussianMixture
from .normal import StandardNormal

PRIORS: dict[str, type[Prior]] = {"flat": FlatPrior, "mixture": GaussianMixture, "normal": StandardNormal}

__all__ = ["PRIORS", "FlatPrior", "GaussianMixture", "Prior", "StandardNormal"]
