"""Priors of z."""

from .base import Prior
from .flat import FlatPrior
from .mixture import GaussianMixture
from .normal import StandardNormal
from .sparse_shift import PerturbationLinks, SparseShift

PRIORS: dict[str, type[Prior]] = {
    "flat": FlatPrior,
    "mixture": GaussianMixture,
    "normal": StandardNormal,
    "sparse_shift": SparseShift,
}

__all__ = ["PRIORS", "FlatPrior", "GaussianMixture", "PerturbationLinks", "Prior", "SparseShift", "StandardNormal"]
