"""Before the fit."""

from ._check import check
from ._fit_dispersion import fit_dispersion

__all__ = ["check", "fit_dispersion"]
