"""scVI with a linear decoder, whose weights can be read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._docs import with_parameters_of
from ..modules.spec import ModelSpec, Part
from ..posterior.factors import sort_factors
from ._assemble import architecture_of, check_against_data, check_number, library_part, model_spec
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
    from ..store.read import Data
    from ..training.batches import CellTable


@with_parameters_of(scvi)
def ldvae(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    labels_key: str | None = None,
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    size_factor_key: str | None = None,
    likelihood: Literal["nb", "zinb", "poisson"] = "nb",
    dispersion: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene",
    library: Literal["observed", "latent"] = "observed",
    n_latent: int = 10,
    loadings_sd: float | None = 0.3,
    n_hidden: int = 128,
    n_layers: int = 2,
    dropout_rate: float = 0.1,
    norm: Literal["batch", "layer", "none"] = "batch",
    encode_covariates: bool = True,
    max_epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-2,
    weight_decay: float = 0.0,
    kl_weight: float = 1.0,
    kl_warmup: float = 0.0,
    penalties: Sequence[str | tuple[str, Mapping[str, Any]]] = (),
    validation_size: float = 0.1,
    early_stopping: bool = True,
    normalized: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    key_added: str = "ldvae",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit LDVAE, scVI with a linear decoder, to raw counts, in place.

    The encoder is that of :func:`scvi`; the way back to genes is one linear map,

    .. math::

        z_n \sim N(0, I), \quad \rho_n = \mathrm{softmax}(W z_n + V s_n + b), \quad
        x_{ng} \sim \mathrm{NB}(\text{mean } \ell_n \rho_{ng}, \text{inverse dispersion } \theta_g)

    with s the batch and other covariates. So a factor has a meaning: one step along :math:`z_d` multiplies the share of
    gene g by :math:`\exp(w_{gd})`, up to what all genes have in common.

    Factors of a fit have no order and no sign, and a softmax leaves each loading free up to a constant over genes. Here
    the loadings of a factor have mean zero, the factors are sorted by the variance they explain, and their signs are
    such that the third moment of the loadings is positive: the longer tail is that of genes that go up. Encoder,
    decoder and what is stored are changed together. In another fit the factors may be rotated against each other, and
    where cells are not independent of each other, neither are the factors.

    Unlike in the original, loadings have a prior, :math:`w_{gd} \sim N(0, 0.3^2)`, which counts once per data set:
    without it, genes of a few counts have the largest loadings of all. There is a bias b, and no batch normalisation
    behind W.

    Use it to ask which genes make up an axis of variation. For the embedding alone :func:`scvi` describes
    counts better, and a batch effect that differs between cell types is beyond a linear decoder.

    Parameters
    ----------
    dispersion
        What theta depends on: the gene, gene and batch, gene and label, or gene and cell (then log theta is linear in z
        too).
    n_latent
        Dimensions of z, the factors.
    loadings_sd
        Standard deviation of the normal prior of the loadings; `None` for no prior.
    n_hidden
        Width of the encoder's hidden layers.
    n_layers
        Hidden layers of the encoder.
    norm
        Normalisation of the encoder's hidden layers.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`, beside what :func:`scvi` writes:

    `obsm["X_ldvae"]`, `obsm["ldvae_latent_var"]`
        Posterior mean and variance of z, cells x factors.
    `varm["ldvae_loadings"]`
        W, genes x factors, float32; NaN for genes not modelled.
    `layers["ldvae_normalized"]`, `var["ldvae_modelled"]`, `var["ldvae_dispersion"]`
        As of :func:`scvi`.
    `uns["ldvae"]`
        The fitted model, and for each factor `explained_variance`, the mean over genes of the variance over cells of
        :math:`w_{gd} z_{nd}`, and `explained_variance_ratio`, its share of the variance of :math:`W z_n`.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled. `adata` stays as it was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates.

    References
    ----------
    Svensson et al. 2020, Bioinformatics 36:3418, doi:10.1093/bioinformatics/btaa169.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.ldvae(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> adata.varm["ldvae_loadings"].shape == (adata.n_vars, 10)
    True
    """
    given = resolve_options(ldvae, locals())
    if loadings_sd is not None:
        check_number(loadings_sd, 1e-3, np.inf, "loadings_sd")
    architecture = architecture_of(given | {"inject_covariates": True})

    def make_spec(data: Data) -> ModelSpec:
        check_against_data(architecture, data.dims, batch_key, labels_key)
        part = library_part(architecture, data.table, size_factors=size_factor_key is not None)
        spec = model_spec(architecture, data.dims, part)
        return replace(spec, decoder=Part("linear", {"n_latent": n_latent, "loadings_sd": loadings_sd}))

    return fit_model(ldvae, given, make_spec, Around(finish=_sorted))


def _sorted(model: VAE, table: CellTable, device: torch.device) -> Mapping[str, Any]:
    """Sort the factors; say what they explain."""
    explained = sort_factors(model, table, device=device)
    return {"explained_variance": explained.variance, "explained_variance_ratio": explained.ratio}
