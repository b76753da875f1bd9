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
from ._perturbation_embedding import perturbation_embedding
from ._posterior_predictive_check import posterior_predictive_check
from ._rank_genes_groups import rank_genes_groups
from ._svae_diagnostics import svae_diagnostics
from ._svae_effect import svae_effect
from ._svae_program import svae_program
from ._svae_targets import svae_targets
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
    "perturbation_embedding",
    "posterior_predictive_check",
    "rank_genes_groups",
    "svae_diagnostics",
    "svae_effect",
    "svae_program",
    "svae_targets",
    "trust",
    "volcano",
]
