"""Tools: fit a model, ask it."""

from ._normalized_expression import normalized_expression
from ._rank_genes_groups import rank_genes_groups
from ._scvi import scvi

__all__ = ["normalized_expression", "rank_genes_groups", "scvi"]
