"""Normalized expression against `SCVI.get_normalized_expression`, both decoding the posterior mean of z."""

import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("scvi")

from _weights import Variant

from scanpy_scvi.posterior import ExpressionRequest, latent_moments, normalized_expression

CPU = torch.device("cpu")
VARIANTS = [Variant("nb"), Variant("zinb", 2, "latent", "gene-batch")]


def ours(p, batch_weights, library_size, genes=None):
    weights = None if batch_weights is None else np.asarray(batch_weights)
    request = ExpressionRequest(batch_weights=weights, library_size=library_size)
    return np.concatenate([v for _, v in normalized_expression(p.ours, p.data.table, request, genes=genes, device=CPU)])


def theirs(p, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return p.peer.get_normalized_expression(return_numpy=True, **options)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize(
    ("transform_batch", "batch_weights"),
    [
        (None, None),
        (["celseq2_5cl_p1"], [0, 1, 0]),
        (["celseq2_3cl", "dropseq_3cl"], [0.5, 0, 0.5]),
        (["celseq2_3cl", "celseq2_5cl_p1", "dropseq_3cl"], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_normalized_expression(pair, posterior_mean, variant, transform_batch, batch_weights):
    p = pair(variant)
    rho = theirs(p, transform_batch=transform_batch)
    np.testing.assert_allclose(ours(p, batch_weights, 1.0), rho, rtol=1e-5)
    genes = np.array([7, 3, 399])
    np.testing.assert_allclose(ours(p, batch_weights, 1e4, genes), 1e4 * rho[:, genes], rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_model_library(pair, posterior_mean, variant):
    """Their mu has no (1 - pi) either."""
    p = pair(variant)
    np.testing.assert_allclose(ours(p, None, None), theirs(p, library_size="latent"), rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_latent_moments(pair, variant):
    p = pair(variant)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mean, var = p.peer.get_latent_representation(return_dist=True)
    moments = latent_moments(p.ours, p.data.table, device=CPU)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5, atol=1e-5 * mean.std())
    np.testing.assert_allclose(moments.var, var, rtol=1e-5)
