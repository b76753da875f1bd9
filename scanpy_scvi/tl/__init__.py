"""Tools: fit a model, ask it."""

from ._condition_test import condition_test
from ._dgd import dgd
from ._differential_abundance import differential_abundance
from ._gene_correlation import gene_correlation
from ._integration_scores import integration_scores
from ._interpolate import interpolate
from ._log_likelihood import log_likelihood
from ._normalized_expression import normalized_expression
from ._posterior_predictive_check import posterior_predictive_check
from ._rank_genes_groups import rank_genes_groups
from ._sample import sample
from ._scvae import scvae
from ._scvi import scvi
from ._trust import trust
from ._verify import verify

__all__ = [
    "condition_test",
    "dgd",
    "differential_abundance",
    "gene_correlation",
    "integration_scores",
    "interpolate",
    "log_likelihood",
    "normalized_expression",
    "posterior_predictive_check",
    "rank_genes_groups",
    "sample",
    "scvae",
    "scvi",
    "trust",
    "verify",
]
