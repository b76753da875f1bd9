"""Latent dimensions of linear decoders in an order, with signs, and what each explains.

Dimensions of z are exchangeable and free of sign, and each loading w_d is free up to a constant over genes, which the
softmax does not see. A fit is brought into one form: loadings with mean zero, dimensions by what they explain, and
signs by a rule. Encoder, decoder and heads are changed together, so that the model says the same as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..modules.decoders import MaskedLinearDecoder
from ..modules.latent_order import LatentOrder
from .latent import latent_moments

if TYPE_CHECKING:
    import torch

    from ..modules.vae import VAE
    from ..training.batches import CellTable


class Explained(NamedTuple):
    """Variance of log rho over cells, by latent dimension, each (n_latent,)."""

    variance: np.ndarray
    """Mean over genes of the variance of w_gd z_d."""
    ratio: np.ndarray
    """The same over the variance of W z. Sums to one where the dimensions are uncorrelated over cells."""


def explained_variance(mean: np.ndarray, loadings: torch.Tensor) -> Explained:
    """Variance of the centred log proportions that each latent dimension explains.

    Parameters
    ----------
    mean
        Posterior means of z, (n_cells, n_latent).
    loadings
        W, (n_genes, n_latent).
    """
    w = loadings.detach().cpu().double().numpy()
    w = w - w.mean(0)
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
    """Centre the loadings of a fitted model in place, and sort its latent dimensions by what they explain, falling."""
    model.decoder.centre()
    loadings = model.decoder.loadings()
    assert loadings is not None  # for the type checker: only linear decoders come here
    explained = explained_variance(latent_moments(model, table, device=device).mean, loadings)
    order = np.argsort(-explained.variance, kind="stable")
    model.reorder_latent(LatentOrder.of(order, signs_by_skewness(loadings)[order]))
    return Explained(explained.variance[order], explained.ratio[order])


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
