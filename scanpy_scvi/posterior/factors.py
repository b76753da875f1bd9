"""Latent dimensions of linear decoders in an order, with signs, and what each explains.

Dimensions of z are exchangeable and free of sign, and each loading w_d is free up to a constant over genes, which the
softmax does not see. A fit is brought into one form: loadings with mean zero, dimensions by what they explain, and
signs by a rule. Encoder, decoder and heads are changed together, so that the model says the same as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..modules.decoders import LinearDecoder, MaskedLinearDecoder
from ..modules.encoders import LinearEncoder
from ..modules.latent_order import LatentOrder
from .latent import latent_moments

if TYPE_CHECKING:
    from ..modules.vae import VAE
    from ..training.batches import CellTable


class Explained(NamedTuple):
    """Variance of log rho over cells, by latent dimension, each (n_latent,)."""

    variance: np.ndarray
    """Mean over genes of the variance of w_gd z_d."""
    ratio: np.ndarray
    """The same over the variance of W z. Sums to one where the dimensions are uncorrelated over cells."""


def explained_variance(mean: np.ndarray, loadings: torch.Tensor, *, centred: bool = True) -> Explained:
    """Variance of the centred log proportions that each latent dimension explains.

    Parameters
    ----------
    mean
        Posterior means of z, (n_cells, n_latent).
    loadings
        W, (n_genes, n_latent).
    centred
        Whether what all genes have in common does not count, since a softmax does not see it.
    """
    w = loadings.detach().cpu().double().numpy()
    w = w - w.mean(0) if centred else w
    covariance = np.atleast_2d(np.cov(mean.astype(np.float64), rowvar=False, bias=True))
    gram = w.T @ w / len(w)
    total = float((covariance * gram).sum())
    variance = np.diag(covariance) * np.diag(gram)
    return Explained(variance, variance / total if total > 0 else np.zeros_like(variance))


def signs_by_skewness(loadings: torch.Tensor) -> np.ndarray:
    """Sign of each dimension with which the third moment of its centred loadings is positive, (n_latent,).

    The genes that a factor moves most then mostly go up with it.
    """
    w = loadings.detach().cpu().double().numpy()
    return np.where(((w - w.mean(0)) ** 3).sum(0) < 0, -1.0, 1.0)


def sort_factors(model: VAE, table: CellTable, *, device: torch.device) -> Explained:
    """Sort the latent dimensions of a fitted model by what they explain, falling, in place.

    Where the decoder ends in a softmax, its loadings are centred.
    """
    softmax = model.likelihood.log_normalized_to is None
    if softmax:
        model.decoder.centre()
    loadings = model.decoder.loadings()
    assert loadings is not None  # for the type checker: only linear decoders come here
    explained = explained_variance(latent_moments(model, table, device=device).mean, loadings, centred=softmax)
    order = np.argsort(-explained.variance, kind="stable")
    model.reorder_latent(LatentOrder.of(order, signs_by_skewness(loadings)[order]))
    return Explained(explained.variance[order], explained.ratio[order])


@torch.no_grad()
def turn_to_principal_axes(model: VAE, table: CellTable, *, device: torch.device) -> Explained:
    """Give a linear autoencoder the axes of a principal component analysis, in place.

    Where encoder and decoder are linear and nothing says what z is, M z with the decoder W M^-1 is the same model for
    any M. Here W gets orthonormal columns, and z is uncorrelated over cells and sorted by variance.
    """
    encoder, decoder = model.encoder, model.decoder
    assert isinstance(encoder, LinearEncoder)  # for the type checker: no others come here
    assert isinstance(decoder, LinearDecoder)
    z = latent_moments(model, table, device=device).mean.astype(np.float64)
    loadings = decoder.logits.weight.detach().cpu().double().numpy()
    u, s, vt = np.linalg.svd(loadings, full_matrices=False)
    to_basis = s[:, None] * vt
    _, axes = np.linalg.eigh(np.atleast_2d(np.cov(z @ to_basis.T, rowvar=False)))
    axes = axes[:, ::-1]
    axes = axes * signs_by_skewness(torch.from_numpy(u @ axes))
    turn = torch.from_numpy(axes.T @ to_basis)
    for tensor in (encoder.mean.weight, encoder.mean.bias, encoder.mean.covariate_weight):
        if tensor is not None:
            tensor.copy_(turn.to(tensor) @ tensor)
    decoder.logits.weight.copy_(torch.from_numpy(u @ axes))
    return explained_variance(z @ turn.numpy().T, decoder.logits.weight, centred=False)


def orient_sets(model: VAE, table: CellTable, *, n_sets: int, device: torch.device) -> Explained:
    """Give the gene sets of a fitted model their signs, in place, and sort the dimensions behind them.

    A set's sign is that with which its weights agree with those of the table: without any, their sum is positive, and
    the set's genes mostly go up with it.
    """
    decoder = model.decoder
    assert isinstance(decoder, MaskedLinearDecoder)  # for the type checker: no other decoder has sets
    decoder.centre()
    explained = explained_variance(latent_moments(model, table, device=device).mean, decoder.loadings())
    sign = signs_by_skewness(decoder.loadings())
    sign[:n_sets] = np.where(decoder.agreement()[:n_sets].cpu().numpy() < 0, -1.0, 1.0)
    behind = n_sets + np.argsort(-explained.variance[n_sets:], kind="stable")
    order = np.concatenate([np.arange(n_sets), behind])
    model.reorder_latent(LatentOrder.of(order, sign[order]))
    return Explained(explained.variance[order], explained.ratio[order])
