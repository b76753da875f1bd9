"""What a fit left in an AnnData, as tables."""

from ._condition_test import condition_test_df
from ._fits import convergence
from ._gene_correlation import gene_correlation_df
from ._history import history
from ._perturbation_effect import perturbation_effect
from ._perturbations import perturbations
from ._rank_activities import rank_activities_df
from ._rank_genes_groups import rank_genes_groups_df

__all__ = [
    "condition_test_df",
    "convergence",
    "gene_correlation_df",
    "history",
    "perturbation_effect",
    "perturbations",
    "rank_activities_df",
    "rank_genes_groups_df",
]
