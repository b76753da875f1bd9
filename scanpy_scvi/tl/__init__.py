"""Tools: fit a model, ask it."""

from ._condition_test import condition_test
from ._normalized_expression import normalized_expression
from ._rank_genes_groups import rank_genes_groups
from ._scvi import scvi

__all__ = ["condition_test", "normalized_expression", "rank_genes_groups", "scvi"]
