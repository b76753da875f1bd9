"""A denoising autoencoder of counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .._docs import with_parameters_of
from ._assemble import NO_DISPERSION, architecture_of, check_against_data, library_part
from ._autoencoding import AE_LIKELIHOODS, Autoencoding, autoencoder_spec
from ._fit import Around
from ._model import fit_model
from ._presets import is_default, resolve_options
from ._scvi import scvi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from anndata import AnnData

    from ..modules.spec import ModelSpec
    from ..store.read import Data


@with_parameters_of(scvi)
def dca(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    corruption: float = 0.0,
    l2: float = 100.0,
    target_sum: float | None = None,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    labels_key: str | None = None,
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    size_factor_key: str | None = None,
    likelihood: Literal["nb", "zinb", "poisson", "gaussian", "mse"] = "nb",
    dispersion: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene-cell",
    n_latent: int = 32,
    n_hidden: int = 64,
    n_layers: int = 1,
    dropout_rate: float = 0.0,
    norm: Literal["batch", "layer", "none"] = "none",
    inject_covariates: bool = True,
    encode_covariates: bool = True,
    max_epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-2,
    penalties: Sequence[str | tuple[str, Mapping[str, Any]]] = (),
    validation_size: float = 0.1,
    early_stopping: bool = True,
    normalized: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    key_added: str = "dca",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit a deep count autoencoder (DCA) to raw counts, in place.

    Each cell is squeezed through a point of few dimensions, and the counts are scored where it comes out,

    .. math::

        z_n = f\big(\log(1 + T x_n / \ell_n), s_n\big), \quad \rho_n = \mathrm{softmax}\, g(z_n, s_n), \qquad
        \min_{f, g, \theta} \; -\sum_n \log \mathrm{NB}\big(x_n;\ \text{mean } \ell_n \rho_n,
        \text{inverse dispersion } \theta(z_n)\big) + \tfrac{\lambda}{2} \lVert W \rVert^2

    with T the `target_sum`. What is shared between genes comes through, the noise of counting does not: the mean
    :math:`\ell_n \rho_{ng}` is the denoised count. It is :func:`scvi` without a posterior variance and without a prior.
    Unlike in the original, the means of a cell sum to its library (a softmax), and batches can be corrected for.

    Use it to denoise, when you want counts back at each cell's own depth. Do not use denoised values to find genes that
    go together: any denoising makes correlations, between genes that have none too (:func:`gene_correlation` says how
    large these get). In a comparison of 18 methods most did not help clustering or trajectories (Hou et al. 2020), so
    take neighbours from the embedding, and differential expression from the counts or from :func:`rank_genes_groups`.
    States are points here: that function's probabilities know how cells differ, but not how uncertain each of them is,
    and :func:`log_likelihood` scores a cell at its point, which flatters cells that were trained on and is comparable
    with no model that has a prior.

    Parameters
    ----------
    corruption
        Share of each cell's molecules that the encoder does not see in training, drawn anew at every step; the
        decoder is asked for all of them (a denoising autoencoder).
    l2
        :math:`\lambda`, counted once per data set: all weights of encoder and decoder, biases and covariates left out,
        are normal with variance :math:`1/\lambda`; 0 for no price.
    target_sum
        Total that the encoder's input is normalised to; `None` for the median total, as in
        :func:`scanpy.pp.normalize_total`.
    size_factor_key
        Numeric column of `obs` with size factors to use in place of total counts. They are put on the scale of totals.
    likelihood
        Distribution of the counts: negative binomial, zero-inflated negative binomial, or Poisson. Or of
        :math:`y = \log(1 + T x / \ell)`: `"gaussian"` with a variance for each gene, `"mse"` with one for all
        genes, which comes to a squared error.
    dispersion
        What theta depends on: the gene, gene and batch, gene and label, or gene and cell. Without meaning for
        likelihoods that have none.
    n_latent
        Dimensions of z.
    n_layers
        Hidden layers of encoder and decoder; the original has one.
    norm
        Normalisation of the hidden layers. None by default, since it would take the scale of the weights away that
        :math:`\lambda` is about; with a price and without a norm kinds of cells lay farther apart.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`:

    `obsm["X_dca"]`
        z, cells x `n_latent`. There is no variance.
    `layers["dca_normalized"]`
        Denoised counts :math:`\ell_n \rho_{ng}`, at each cell's **own library size**, averaged over the batches in
        proportion to their cells; NaN for genes not modelled. `X` stays as it is. For another scale,
        :func:`normalized_expression` with `library_size=`.
    `var["dca_modelled"]`, `var["dca_dispersion"]`
        As of :func:`scvi`.
    `uns["dca"]`
        The fitted model, parameters, history and a verdict on convergence; `denoised_scale` names the layer's scale.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled, with what was found, what was expected and what to do. `adata` stays as it
        was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates; names cell, gene and batch.

    References
    ----------
    Eraslan et al. 2019, Single-cell RNA-seq denoising using a deep count autoencoder, Nat Commun 10:390,
    doi:10.1038/s41467-018-07931-2. Hou et al. 2020, Genome Biol 21:218, doi:10.1186/s13059-020-02132-x.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.dca(adata, max_epochs=3, progress=False)
    >>> adata.obsm["X_dca"].shape, adata.uns["dca"]["denoised_scale"]
    ((200, 32), "counts at the cell's own library size")
    """
    given = resolve_options(dca, locals())
    if likelihood in NO_DISPERSION and is_default(dca, "dispersion", dispersion):
        given["dispersion"] = "gene"
    architecture = architecture_of(given | {"library": "observed"}, likelihoods=AE_LIKELIHOODS)
    how = Autoencoding(target_sum, corruption, l2)
    how.check()

    def make_spec(data: Data) -> ModelSpec:
        check_against_data(architecture, data.dims, batch_key, labels_key)
        part = library_part(architecture, data.table, size_factors=size_factor_key is not None)
        return autoencoder_spec(architecture, how, data, part)

    return fit_model(dca, given, make_spec, Around(denoised_to=None))
