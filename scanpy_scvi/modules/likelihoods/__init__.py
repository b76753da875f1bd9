"""Likelihoods of counts."""

from .base import Likelihood
from .dispersion import Dispersion, DispersionKind
from .negative_binomial import NegativeBinomial
from .poisson import Poisson
from .zero_inflated import ZeroInflatedNegativeBinomial

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "nb": NegativeBinomial,
    "poisson": Poisson,
    "zinb": ZeroInflatedNegativeBinomial,
}

__all__ = [
    "LIKELIHOODS",
    "Dispersion",
    "DispersionKind",
    "Likelihood",
    "NegativeBinomial",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
]
