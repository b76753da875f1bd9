"""Draw what the other parts stored."""

from ._activities import activities
from ._dispersion import dispersion
from ._effect import effect
from ._history import history
from ._integration import integration
from ._interpolation import interpolation
from ._latent import latent
from ._loadings import loadings
from ._normalized import normalized
from ._posterior_predictive_check import posterior_predictive_check
from ._rank_genes_groups import rank_genes_groups
from ._trust import trust
from ._volcano import volcano

__all__ = [
    "activities",
    "dispersion",
    "effect",
    "history",
    "integration",
    "interpolation",
    "latent",
    "loadings",
    "normalized",
    "posterior_predictive_check",
    "rank_genes_groups",
    "trust",
    "volcano",
]
