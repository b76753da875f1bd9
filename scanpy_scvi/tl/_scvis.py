"""A variational autoencoder as a map of the cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._docs import with_parameters_of
from ..modules.spec import ModelSpec, Part
from ..posterior.bound import log_density
from ..store.keys import Keys
from ..store.write import Beside, Extras
from ._assemble import architecture_of, check_against_data, check_number
from ._autoencoding import Autoencoding, autoencoder_spec
from ._fit import Around
from ._model import fit_model
from ._presets import resolve_options
from ._scvi import scvi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from anndata import AnnData

    from ..modules.vae import VAE
    from ..posterior import LatentMoments
    from ..store.read import Data
    from ..training.batches import CellTable

FIXED = {"library": "observed", "dispersion": "gene", "inject_covariates": True, "likelihood": "nb"}


@with_parameters_of(scvi)
def scvis(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    tsne_weight: float = 100.0,
    perplexity: float = 10.0,
    target_sum: float | None = None,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    n_latent: int = 2,
    n_hidden: int = 128,
    n_layers: int = 2,
    dropout_rate: float = 0.0,
    norm: Literal["batch", "layer", "none"] = "batch",
    encode_covariates: bool = True,
    max_epochs: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 1e-2,
    weight_decay: float = 0.0,
    kl_weight: float = 1.0,
    kl_warmup: float = 0.0,
    penalties: Sequence[str | tuple[str, Mapping[str, Any]]] = (),
    validation_size: float = 0.1,
    early_stopping: bool = True,
    normalized: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    key_added: str = "scvis",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit a map of the cells that new cells can be put on (after scvis), in place.

    A variational autoencoder of two dimensions with heavy-tailed noise on log-normalised counts,

    .. math::

        z_n \sim N(0, I), \qquad
        y_{ng} = \log(1 + T x_{ng} / \ell_n) = m_g(z_n, s_n) + \sigma_g t_{ng}, \quad t_{ng} \sim t_{\nu_g}

    is fitted by its bound and the price :math:`\lambda\, \mathrm{KL}(P \Vert Q)` of t-SNE: P are similarities of the
    cells of a minibatch in 50 principal components of y at the median total, at a `perplexity`; Q those in z, by a
    Student-t kernel. So neighbours stay neighbours, while prior and decoder hold the whole together; and as the map is
    a function of the counts, :func:`map_query` puts new cells on it.

    :math:`\nu_g` is learned within 0.1 and 10. The original models 100 principal components; y itself is zero in most
    entries, so :math:`\sigma_g` has a least value here, without which the density of a silent gene would have no bound.

    Use it for a picture that new cells can be put on. Where all cells are there, UMAP of `obsm["X_scvi"]` is the usual
    picture, and :func:`learn_embedding` can put new cells on that too. Two dimensions are too few for clustering,
    differential expression or batch correction: take :func:`scvi`. P knows nothing of batches, so it holds
    them apart, against `batch_key`.

    Parameters
    ----------
    tsne_weight
        :math:`\lambda`, nats per cell.
    perplexity
        Neighbours that a cell has in P, softly; at most a third of a minibatch.
    target_sum
        T; `None` for the median total.
    n_latent
        Dimensions of z.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`:

    `obsm["X_scvis"]`, `obsm["scvis_latent_var"]`
        Posterior mean and variance of z, cells x `n_latent`.
    `obs["scvis_loglik"]`
        :math:`\log p(y_n \mid z_n)` at the posterior mean, nats: cells that the map does not describe have low values.
        Of cells that are mapped to the fit, ask :func:`log_likelihood`.
    `layers["scvis_normalized"]`, `var["scvis_modelled"]`
        As of :func:`scvi`: :math:`e^{m} - 1`, scaled to 10,000.
    `uns["scvis"]`
        The fitted model, parameters, history and a verdict on convergence.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled, with what was found, what was expected and what to do. `adata` stays as it
        was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates; names cell, gene and batch.

    References
    ----------
    Ding et al. 2018, Interpretable dimensionality reduction of single cell transcriptome data with deep generative
    models, Nat Commun 9:2002, doi:10.1038/s41467-018-04368-5.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvis(adata, max_epochs=5, progress=False)
    >>> adata.obsm["X_scvis"].shape, bool(adata.obs["scvis_loglik"].notna().all())
    ((200, 2), True)
    """
    given = resolve_options(scvis, locals())
    architecture = architecture_of(given | FIXED)
    how = Autoencoding(target_sum, corruption=0.0, l2=0.0, variational=True)
    how.check()
    check_number(tsne_weight, 0, np.inf, "tsne_weight")
    check_number(perplexity, 1 + 1e-6, np.inf, "perplexity")

    def make_spec(data: Data) -> ModelSpec:
        check_against_data(architecture, data.dims, batch_key, None)
        spec = autoencoder_spec(architecture, how, data, Part("observed"))
        likelihood = Part("student_t", {"total": spec.encoder.options["input_total"]})
        price = Part("tsne", {"weight": float(tsne_weight), "perplexity": float(perplexity)})
        return replace(spec, likelihood=likelihood, penalties=(price,) if tsne_weight else ())

    loglik = Keys(key_added).log_density

    def annotate(model: VAE, table: CellTable, latent: LatentMoments, device: torch.device) -> Extras:
        return Extras(obs={loglik: log_density(model, table, latent.mean, device=device)})

    return fit_model(scvis, given, make_spec, Around(annotate=annotate, beside=Beside((loglik,))))
