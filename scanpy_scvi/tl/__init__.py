"""Tools: fit a model, ask it."""

from ._autoencoder import autoencoder
from ._autoimpute import autoimpute
from ._condition_test import condition_test
from ._dca import dca
from ._dgd import dgd
from ._differential_abundance import differential_abundance
from ._from_scvi_tools import from_scvi_tools
from ._gene_correlation import gene_correlation
from ._integration_scores import integration_scores
from ._interpolate import interpolate
from ._ldvae import ldvae
from ._learn_embedding import learn_embedding
from ._log_likelihood import log_likelihood
from ._map_query import map_query
from ._normalized_expression import normalized_expression
from ._place_cells import place_cells
from ._posterior_predictive_check import posterior_predictive_check
from ._predict_perturbation import predict_perturbation
from ._rank_activities import rank_activities
from ._rank_genes_groups import rank_genes_groups
from ._rotate import rotate
from ._sample import sample
from ._saucie import saucie
from ._scgen import scgen
from ._scscope import scscope
from ._scvae import scvae
from ._scvi import scvi
from ._scvis import scvis
from ._slim import slim
from ._svae import svae
from ._svae_transfer import svae_transfer
from ._to_scvi_tools import to_scvi_tools
from ._transfer_labels import transfer_labels
from ._trust import trust
from ._vega import vega
from ._verify import verify

__all__ = [
    "autoencoder",
    "autoimpute",
    "condition_test",
    "dca",
    "dgd",
    "differential_abundance",
    "from_scvi_tools",
    "gene_correlation",
    "integration_scores",
    "interpolate",
    "ldvae",
    "learn_embedding",
    "log_likelihood",
    "map_query",
    "normalized_expression",
    "place_cells",
    "posterior_predictive_check",
    "predict_perturbation",
    "rank_activities",
    "rank_genes_groups",
    "rotate",
    "sample",
    "saucie",
    "scgen",
    "scscope",
    "scvae",
    "scvi",
    "scvis",
    "slim",
    "svae",
    "svae_transfer",
    "to_scvi_tools",
    "transfer_labels",
    "trust",
    "vega",
    "verify",
]
