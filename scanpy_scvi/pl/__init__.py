"""Draw what the other parts stored."""

from ._dispersion import dispersion
from ._effect import effect
from ._history import history
from ._latent import latent
from ._normalized import normalized
from ._rank_genes_groups import rank_genes_groups
from ._volcano import volcano

__all__ = ["dispersion", "effect", "history", "latent", "normalized", "rank_genes_groups", "volcano"]
