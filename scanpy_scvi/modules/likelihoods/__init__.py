"""Likelihoods of counts, and of what is made of them."""

from .base import Likelihood
from .dispersion import Dispersion, DispersionKind
from .gaussian import Gaussian
from .negative_binomial import NegativeBinomial
from .poisson import Poisson
from .student_t import StudentT
from .zero_inflated import ZeroInflatedNegativeBinomial

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "nb": NegativeBinomial,
    "poisson": Poisson,
    "student_t": StudentT,
    "zinb": ZeroInflatedNegativeBinomial,
}

COUNT_LIKELIHOODS = ("nb", "poisson", "zinb")
"""Those of the counts themselves, by which bounds of models compare."""

__all__ = [
    "COUNT_LIKELIHOODS",
    "LIKELIHOODS",
    "Dispersion",
    "DispersionKind",
    "Gaussian",
    "Likelihood",
    "NegativeBinomial",
    "Poisson",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
]
