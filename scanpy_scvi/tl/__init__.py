"""Tools: fit a model, ask it."""

from ._differential_abundance import differential_abundance
from ._integration_scores import integration_scores
from ._interpolate import interpolate
from ._normalized_expression import normalized_expression
from ._rank_genes_groups import rank_genes_groups
from ._scvi import scvi
from ._trust import trust

__all__ = [
    "differential_abundance",
    "integration_scores",
    "interpolate",
    "normalized_expression",
    "rank_genes_groups",
    "scvi",
    "trust",
]
