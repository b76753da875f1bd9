"""scVI with a decoder whose latent dimensions are gene sets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from .. import _logging
from .._docs import with_parameters_of
from ..modules.decoders import Links, MaskedLinearDecoder
from ..modules.spec import ModelSpec, Part
from ..posterior.factors import orient_sets
from ..store.checks import check_unique_genes
from ..store.gene_sets import GeneSets, read_gene_sets, select_gene_sets
from ..store.read import resolve_mask
from ._assemble import architecture_of, check_against_data, check_choice, check_number, library_part, model_spec
from ._fit import Around
from ._model import fit_model
from ._presets import resolve_options
from ._scvi import scvi

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from ..modules.vae import VAE
    from ..store.read import Data
    from ..training.batches import CellTable


@with_parameters_of(scvi)
def vega(
    adata: AnnData,
    gene_sets: str | os.PathLike[str] | Mapping[str, Sequence[str]] | pd.DataFrame,
    *,
    min_genes: int = 5,
    n_unannotated: int = 0,
    non_negative: bool = False,
    latent_dropout: float = 0.0,
    batch_key: str | None = None,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    labels_key: str | None = None,
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    size_factor_key: str | None = None,
    likelihood: Literal["nb", "zinb", "poisson"] = "nb",
    dispersion: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene",
    library: Literal["observed", "latent"] = "observed",
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
    key_added: str = "vega",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit VEGA, scVI with a latent dimension for each gene set, to raw counts, in place.

    The encoder is that of :func:`scvi`; on the way back to genes, a dimension reaches only the genes of its set,

    .. math::

        z_n \sim N(0, I), \quad \rho_n = \mathrm{softmax}\big((M \circ W) z_n + V s_n + b\big), \quad
        x_{ng} \sim \mathrm{NB}(\text{mean } \ell_n \rho_{ng}, \text{inverse dispersion } \theta_g)

    with :math:`M_{gd} = 1` where gene g belongs to set d, and s the batch and other covariates. So
    :math:`z_{nd}` is the activity of set d in cell n: one step along it multiplies the shares of its genes by
    :math:`\exp(w_{gd})`. Its sign is such that the weights of a set sum to a positive number: activity up, genes up.
    Unannotated dimensions, if asked for, reach all genes. Genes in no set are left out.

    Use it to ask which known programmes differ between cells (:func:`rank_activities`). The answer is only as good as
    the sets: those with many genes in common compete, and which of them gets the credit can differ between fits. The
    scale of an activity is its own, so compare cells within a set, not sets with each other. For the embedding
    alone :func:`scvi` describes counts better.

    Against the original, counts are modelled as counts, with a library size, and weights that may not be negative are
    so by their form, not by cutting after each step.

    Parameters
    ----------
    gene_sets
        Path of a GMT file, a dict from names to genes, or a long table with the columns `source` (set), `target` (gene)
        and possibly `weight`, as decoupler makes it. Weights count relative to each other within a set; they multiply
        those that are fitted.
    min_genes
        Sets with fewer modelled genes are left out.
    n_unannotated
        Latent dimensions that are no gene set. They are free to explain what sets could, and a single one may explain
        more than all sets together.
    non_negative
        Whether fitted weights of genes in sets are non-negative. Then those of a table with weights keep their
        signs.
    latent_dropout
        Dropout of latent dimensions in training, with which sets that have genes in common share what they explain.
    dispersion
        What theta depends on: the gene, gene and batch, gene and label, or gene and cell (then log theta is linear in z
        too).
    n_hidden
        Width of the encoder's hidden layers.
    n_layers
        Hidden layers of the encoder.
    norm
        Normalisation of the encoder's hidden layers.
    mask_var
        Genes to model, of those in sets: a bool column of `var`, a bool array, or `None` for all. By default (`"auto"`)
        those in `var["highly_variable"]`, where that exists.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`, beside what :func:`scvi` writes:

    `obsm["X_vega"]`, `obsm["vega_latent_var"]`
        Activities: posterior mean and variance of z, cells x (sets, then unannotated dimensions).
    `varm["vega_loadings"]`
        :math:`M \circ W`, genes x dimensions, float32; NaN for genes not modelled.
    `layers["vega_normalized"]`, `var["vega_modelled"]`, `var["vega_dispersion"]`
        As of :func:`scvi`.
    `uns["vega"]`
        The fitted model, and in the order of the dimensions: `gene_sets`, their names; `n_genes`, how many genes
        each reaches; `explained_variance`, the mean over genes of the variance over cells of
        :math:`(w_{gd} - \bar w_d) z_{nd}`, less the mean of the column since a softmax does not see it, near zero for a
        set that the model does not use; `explained_variance_ratio`, its share of that of :math:`(M \circ W) z_n`.

    Raises
    ------
    FileNotFoundError
        Where there is no such GMT file.
    ValueError, KeyError, TypeError
        For sets that cannot be read or match no genes, and input that cannot be modelled. `adata` stays as it was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates.

    References
    ----------
    Seninge et al. 2021, Nat Commun 12:5684, doi:10.1038/s41467-021-26017-0.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> keratins = ["KRT7", "KRT8", "KRT18", "KRT19", "KRT81"]
    >>> sets = {"keratins": keratins, "HLA": ["HLA-A", "HLA-B", "HLA-C", "HLA-E", "B2M"]}
    >>> sv.tl.vega(adata, sets, max_epochs=2, progress=False)
    >>> list(adata.uns["vega"]["gene_sets"])
    ['keratins', 'HLA']
    """
    given = resolve_options(vega, locals())
    _check(given)
    sets, given["mask_var"] = _sets_and_genes(adata, given)
    n_sets, n_latent = len(sets.names), len(sets.names) + int(n_unannotated)
    architecture = architecture_of(given | {"n_latent": n_latent, "inject_covariates": True})
    decoder = {
        "n_latent": n_latent,
        "n_links": len(sets.gene),
        "n_free": int(n_unannotated),
        "keep_signs": non_negative,
        "latent_dropout": latent_dropout,
    }

    def make_spec(data: Data) -> ModelSpec:
        check_against_data(replace(architecture, n_latent=1), data.dims, batch_key, labels_key)  # sets may be many
        part = library_part(architecture, data.table, size_factors=size_factor_key is not None)
        return replace(model_spec(architecture, data.dims, part), decoder=Part("masked_linear", decoder))

    def prepare(model: VAE) -> None:
        assert isinstance(model.decoder, MaskedLinearDecoder)  # for the type checker: so it was specified
        model.decoder.set_links(Links(*map(torch.from_numpy, (sets.gene, sets.set_code, sets.scale))))

    def finish(model: VAE, table: CellTable, device: torch.device) -> Mapping[str, Any]:
        explained = orient_sets(model, table, n_sets=n_sets, device=device)
        return {
            "gene_sets": [*sets.names, *(f"unannotated_{i + 1}" for i in range(int(n_unannotated)))],
            "n_genes": np.r_[np.bincount(sets.set_code), np.full(int(n_unannotated), table.n_genes)],
            "explained_variance": explained.variance,
            "explained_variance_ratio": explained.ratio,
        }

    return fit_model(vega, given, make_spec, Around(prepare, finish))


def _check(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for an option out of range, or two that exclude each other."""
    check_number(given["min_genes"], 1, np.inf, "min_genes", whole=True)
    check_number(given["n_unannotated"], 0, 1000, "n_unannotated", whole=True)
    check_number(given["latent_dropout"], 0, 0.95, "latent_dropout")
    check_choice(given["non_negative"], (True, False), "non_negative")
    if given["non_negative"] and given["weight_decay"]:
        msg = (
            "`weight_decay` pulls weights to zero, but with `non_negative=True` it would act on their logarithms and "
            "pull them to another number. Leave one of them out."
        )
        raise ValueError(msg)


def _sets_and_genes(adata: AnnData, given: Mapping[str, Any]) -> tuple[GeneSets, np.ndarray]:
    """Gene sets with enough modelled genes, and which genes are in any of them."""
    check_unique_genes(adata.var_names)
    table = read_gene_sets(given["gene_sets"])
    candidates = np.flatnonzero(resolve_mask(adata, given["mask_var"]))
    sets = select_gene_sets(table, adata.var_names[candidates], min_genes=int(given["min_genes"]))
    used, gene = np.unique(sets.gene, return_inverse=True)
    mask = np.zeros(adata.n_vars, bool)
    mask[candidates[used]] = True
    n_all = table["source"].nunique()
    _logging.info(
        f"{len(sets.names)} of {n_all} gene sets have {given['min_genes']} genes or more, {len(used)} together"
    )
    return sets._replace(gene=gene), mask
