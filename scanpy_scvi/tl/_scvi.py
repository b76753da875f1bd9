"""scVI in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ._assemble import architecture_of, check_against_data, library_part, model_spec
from ._model import fit_model
from ._presets import resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from anndata import AnnData

    from ..modules.spec import ModelSpec
    from ..store.read import Data


def scvi(
    adata: AnnData | str | Path,
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
    n_latent: int = 20,
    n_hidden: int = 128,
    n_layers: int = 2,
    dropout_rate: float = 0.1,
    norm: Literal["batch", "layer", "none"] = "batch",
    inject_covariates: bool = True,
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
    preset: Literal["scvi-tools"] | None = None,
    normalized: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    key_added: str = "scvi",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
    out: str | Path | None = None,
) -> AnnData | None:
    r"""Fit scVI to raw counts, in place.

    scVI is a conditional variational autoencoder of counts: each cell n has a latent state z, which with the cell's
    batch s decides the expected proportions of its genes,

    .. math::

        z_n \sim N(0, I), \quad \rho_n = \mathrm{softmax}\, f(z_n, s_n), \quad
        x_{ng} \sim \mathrm{NB}(\text{mean } \ell_n \rho_{ng}, \text{inverse dispersion } \theta_g)

    and is fitted by the evidence lower bound. z is free of what the batch explains, so it is a batch-corrected
    embedding, and :math:`\rho` is denoised expression.

    Parameters
    ----------
    adata
        Annotated counts, cells x genes. A view becomes an object of its own. The counts of a file opened with
        ``backed="r"``, of a matrix on disk (:func:`anndata.io.sparse_dataset`, of .h5ad or zarr) or of a dask array
        stay there unless they are few (256 MiB): they are read in blocks of consecutive cells, in random order. Or the
        path of an `.h5ad` or `.zarr`, whose counts stay there likewise, and into which the results are written: all at
        once when the call succeeds, so that it stays as it was after an error, a crash or on a full disk. Other
        matrices of the file are not read, but copied as they are stored.
    batch_key
        Column of `obs` with the batch to correct for.
    layer
        Layer that holds the counts; `X` by default.
    mask_var
        Genes to model: a bool column of `var`, a bool array, or `None` for all. By default (`"auto"`) those in
        `var["highly_variable"]`, where that exists.
    labels_key
        Column of `obs` with labels, for `dispersion="gene-label"`.
    categorical_covariate_keys
        Further categorical columns of `obs` to correct for.
    continuous_covariate_keys
        Numeric columns of `obs` to correct for; they are standardised.
    size_factor_key
        Numeric column of `obs` with size factors to use in place of total counts. They are put on the scale of totals.
    likelihood
        Distribution of the counts: negative binomial, zero-inflated negative binomial, or Poisson.
    dispersion
        What theta depends on: the gene, gene and batch, gene and label, or gene and cell.
    library
        Whether the library size is the total over the modelled genes, or latent with a log-normal prior per batch.
    n_latent
        Dimensions of z.
    n_hidden
        Width of the hidden layers.
    n_layers
        Hidden layers of encoder and decoder.
    dropout_rate
        Dropout in the encoder.
    norm
        Normalisation of the hidden layers.
    inject_covariates
        Whether covariates enter every layer, the decoder's output layer included, or the first alone.
    encode_covariates
        Whether covariates enter the encoder too.
    max_epochs
        Most passes over the training cells; by default from the number of cells (see the user guide).
    batch_size
        Cells in a minibatch, at most.
    learning_rate
        Peak step size of Adam.
    weight_decay
        Factor of the L2 penalty on the weights.
    kl_weight
        Weight of KL(q(z) || p(z)) in the loss.
    kl_warmup
        Share of the epochs over which that weight rises from zero.
    penalties
        Prices that training adds to the bound, each a name or a pair of a name and its options: `"mmd"` keeps batches
        together, `"entropy"` makes few hidden units carry the cells, `"tsne"` keeps neighbours. For example
        `penalties=("mmd", ("entropy", {"weight": 0.1}))`. Each is worked out within minibatches, so it depends on
        `batch_size`. See the user guide on the mathematics.
    validation_size
        Share of cells held out to judge the fit.
    early_stopping
        Whether the fit ends its constant phase when the held-out bound is flat.
    preset
        `"scvi-tools"` takes architecture, schedule and start of scvi-tools 1.4, for comparisons; options that you
        set to something else than their default win over it.
    normalized
        Whether to write the normalized expression; `"auto"` unless it would take more than a quarter of the free
        memory, or the counts stay in a file.
    groupby
        Column of `obs` with groups whose genes are ranked after the fit, by :func:`rank_genes_groups` with its
        defaults.
    key_added
        Name of the results; another one renames all slots together.
    store_model
        Whether the model is stored with its results. Without it the file is smaller; what asks the model says that it
        is not there.
    on_interrupt
        Whether Ctrl-C leaves `adata` as it was, or writes the best weights so far.
    random_state
        Seed. The same seed on the same machine gives the same result.
    checkpoint
        Folder in which the fit leaves its state about every minute, to go on after a crash: the same call with the same
        data and options, and the same `checkpoint`, continues from there and gives the same bits as a fit that never
        stopped. Its files are deleted when the fit has succeeded, and kept where Ctrl-C ended it.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.
    progress
        Whether to show a progress line; by default in a terminal or notebook unless scanpy's verbosity is 0.
    copy
        Whether to return a changed copy rather than to change `adata`.
    out
        Where `adata` is a path: file to write, `.h5ad` or `.zarr`, in its place.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`:

    `obsm["X_scvi"]`
        Posterior mean of z, cells x `n_latent`.
    `obsm["scvi_latent_var"]`
        Posterior variance of z.
    `layers["scvi_normalized"]`
        Expected counts per 10,000, averaged over the batches in proportion to their cells; NaN for genes not modelled.
    `var["scvi_modelled"]`
        Whether a gene is modelled.
    `var["scvi_dispersion"]` or `varm["scvi_dispersion"]`
        Inverse dispersion theta; in `varm` one column per batch or label.
    `uns["scvi"]`
        The fitted model, parameters, history and a verdict on convergence, as plain arrays and text.
    `uns["rank_genes_groups_scvi"]`, `uns["rank_genes_groups_scvi_table"]`
        With `groupby`, the genes of each group.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled, with what was found, what was expected and what to do; for a state in
        `checkpoint` that is damaged or of another fit. `adata` stays as it was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates; names cell, gene and batch.

    References
    ----------
    Lopez et al. 2018, Nat Methods 15:1053, doi:10.1038/s41592-018-0229-2. Shi 2021, arXiv 2101.00650.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> adata.obsm["X_scvi"].shape
    (1021, 20)
    """
    given = resolve_options(scvi, locals())
    architecture = architecture_of(given)

    def make_spec(data: Data) -> ModelSpec:
        check_against_data(architecture, data.dims, batch_key, labels_key)
        part = library_part(architecture, data.table, size_factors=size_factor_key is not None)
        return model_spec(architecture, data.dims, part)

    return fit_model(scvi, given, make_spec)
