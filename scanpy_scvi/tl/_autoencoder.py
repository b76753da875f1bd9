"""Plain autoencoders, linear ones and variational ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .._docs import with_parameters_of
from ..modules.spec import ModelSpec, Part
from ..posterior.factors import sort_factors, turn_to_principal_axes
from ._assemble import architecture_of, check_against_data, check_choice
from ._autoencoding import AE_LIKELIHOODS, Autoencoding, autoencoder_spec
from ._fit import Around
from ._model import fit_model
from ._presets import resolve_options
from ._scvi import scvi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from anndata import AnnData

    from ..modules.vae import VAE
    from ..store.read import Data
    from ..training.batches import CellTable

L2 = 100.0
"""Price of weights where there are hidden layers, by default."""


@with_parameters_of(scvi)
def autoencoder(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    variational: bool = False,
    likelihood: Literal["gaussian", "mse", "nb", "zinb", "poisson"] = "gaussian",
    n_layers: int = 1,
    l2: float | None = None,
    corruption: float = 0.0,
    target_sum: float | None = None,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    n_latent: int = 20,
    n_hidden: int = 128,
    dropout_rate: float = 0.0,
    norm: Literal["batch", "layer", "none"] | None = None,
    encode_covariates: bool = True,
    max_epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-2,
    kl_weight: float = 1.0,
    kl_warmup: float = 0.0,
    penalties: Sequence[str | tuple[str, Mapping[str, Any]]] = (),
    validation_size: float = 0.1,
    early_stopping: bool = True,
    normalized: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    key_added: str = "ae",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit an autoencoder to log-normalised counts, in place: linear (PCA), deep, or variational.

    With :math:`y_{ng} = \log(1 + T x_{ng} / \ell_n)` computed from the counts, T being the `target_sum`,

    .. math::

        z_n = f(y_n, s_n), \qquad
        \min_{f, g, \sigma} \; \sum_n \sum_g \left[ \frac{(y_{ng} - g_g(z_n, s_n))^2}{2 \sigma_g^2}
        + \tfrac12 \log 2 \pi \sigma_g^2 \right] + \tfrac{\lambda}{2} \lVert W \rVert^2

    and with `variational=True`, :math:`z_n \sim q = N(f(y_n, s_n), \mathrm{diag}\, v)` at the price of
    :math:`\mathrm{KL}(q \,\|\, N(0, I))` for each cell.

    Without hidden layers (`n_layers=0`) f and g are linear. With `likelihood="mse"` that is PCA: a linear autoencoder
    finds the subspace of the first principal components, but no axes in it (with :math:`\lambda > 0`, those shrunk
    towards zero; Kunin et al. 2019), so it is turned to the axes of PCA after the fit: loadings are orthonormal, and
    the dimensions uncorrelated and sorted by what they explain. A linear `variational` one is probabilistic PCA
    (Lucas et al. 2019); its dimensions are sorted.

    Use it to understand what a network adds to PCA, and what a prior and counts add to that. For the embedding
    of counts, batch correction and differential expression, :func:`scvi` is the better model: a squared error of
    logarithms takes the noise of shallow cells for signal. For denoised counts, :func:`dca`. Values of
    :func:`log_likelihood` are densities of y, at the cell's own point where there is no variance: they compare neither
    with those of counts nor between values of T. Denoised expression is what :math:`e^{y} - 1` gives at the mean
    of y, scaled to the same total for all cells; it lies below the mean count where genes are noisy.

    Parameters
    ----------
    variational
        Whether z has a posterior variance and a standard normal prior. A linear encoder has the same variance for all
        cells.
    likelihood
        `"gaussian"` with a variance for each gene; `"mse"` with one for all genes, which comes to a squared error; or
        that of the counts, by a softmax: `"nb"`, `"zinb"`, `"poisson"`.
    n_layers
        Hidden layers of encoder and decoder, 0 for linear ones.
    l2
        :math:`\lambda`, counted once per data set: all weights, biases and covariates left out, are normal with
        variance :math:`1/\lambda`. By default 100, and 0 without hidden layers.
    norm
        Normalisation of the hidden layers. By default `"none"` for points, since it would take the scale of the weights
        away that :math:`\lambda` is about, and `"batch"` with `variational=True`, where that kept cell types better
        apart; then only the last layers feel :math:`\lambda`.
    corruption
        Share of each cell's molecules that the encoder does not see in training, drawn anew at every step; the decoder
        is asked for all of them (a denoising autoencoder).
    target_sum
        T; `None` for the median total, as in :func:`scanpy.pp.normalize_total`.
    kl_weight
        Weight of the KL in the loss, where there is one.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`:

    `obsm["X_ae"]`
        z, cells x `n_latent`; its posterior mean where it has a variance.
    `obsm["ae_latent_var"]`
        With `variational=True`, the posterior variance.
    `varm["ae_loadings"]`
        With `n_layers=0`, genes x `n_latent`; NaN for genes not modelled.
    `layers["ae_normalized"]`, `var["ae_modelled"]`
        As of :func:`scvi`.
    `uns["ae"]`
        The fitted model, parameters, history and a verdict on convergence; with `n_layers=0`, `explained_variance` of
        each dimension, the mean over genes of the variance over cells, and `explained_variance_ratio`, its share of
        that of what is decoded: they sum to about one, other than those of :func:`scanpy.pp.pca`.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled, with what was found, what was expected and what to do. `adata` stays as it
        was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates; names cell, gene and batch.

    References
    ----------
    Shi 2021, arXiv 2101.00650. Kunin et al. 2019, Loss Landscapes of Regularized Linear Autoencoders, arXiv 1901.08168.
    Lucas et al. 2019, Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse, arXiv 1911.02469.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.autoencoder(adata, n_layers=0, likelihood="mse", n_latent=5, max_epochs=5, progress=False)
    >>> adata.obsm["X_ae"].shape, adata.varm["ae_loadings"].shape == (adata.n_vars, 5)
    ((200, 5), True)
    """
    given = resolve_options(autoencoder, locals())
    check_choice(variational, (True, False), "variational")
    given["norm"] = ("batch" if variational else "none") if norm is None else norm
    fixed = {"library": "observed", "dispersion": "gene", "inject_covariates": True}
    architecture = architecture_of(given | fixed, likelihoods=AE_LIKELIHOODS, least_layers=0)
    given["l2"] = (L2 if n_layers else 0.0) if l2 is None else l2
    how = Autoencoding(target_sum, corruption, given["l2"], variational)
    how.check()

    def make_spec(data: Data) -> ModelSpec:
        check_against_data(architecture, data.dims, batch_key, None)
        return autoencoder_spec(architecture, how, data, Part("observed"))

    return fit_model(autoencoder, given, make_spec, Around(finish=_in_order if n_layers == 0 else None))


def _in_order(model: VAE, table: CellTable, device: torch.device) -> Mapping[str, Any]:
    """Bring the dimensions of a linear model into an order; say what they explain."""
    free = not model.prior.sets_scale and model.likelihood.log_normalized_to is not None
    explained = (turn_to_principal_axes if free else sort_factors)(model, table, device=device)
    return {"explained_variance": explained.variance, "explained_variance_ratio": explained.ratio}
