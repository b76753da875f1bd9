"""Normalized expression of a fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from .. import _logging
from ..posterior import ExpressionRequest
from ..posterior import normalized_expression as expression_chunks
from ..store.keys import check_name
from ..store.load import load
from ..store.scale import SCALE, Scale, scale_name
from ..store.write import actualise, check_writable, fill_layer
from ..training.device import resolve_device
from ..training.threads import limited_to_useful
from ._assemble import check_choice, check_number
from ._requests import batch_weights, gene_names, gene_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def normalized_expression(
    adata: AnnData,
    *,
    genes: Sequence[str] | None = None,
    transform_batch: str | Sequence[str] | Literal["observed"] | None = None,
    n_samples: int | None = None,
    library_size: float | Literal["latent"] = 1e4,
    statistic: Literal["mean", "root"] = "mean",
    key: str = "scvi",
    key_added: str | None = None,
    inplace: bool = True,
    random_state: int = 0,
    device: str = "auto",
) -> pd.DataFrame | None:
    r"""Denoised expression of a fitted model: the expected proportions of genes times a library size.

    .. math:: \tilde x_{ng} = L \sum_b w_b \, \rho_g(z_n, b), \qquad \rho = \mathrm{softmax}\, f(z, b)

    z is the posterior mean, or `n_samples` draws are averaged. Zero inflation never enters. Works on a reloaded
    file, and on any cells that have the model's genes and categories. Counts that lie in a file stay there: memory is
    that of the table. The layer has all genes of `adata`, in memory, so for a few genes of many cells take the table,
    `inplace=False`.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`.
    genes
        Names of the genes wanted; all modelled genes by default.
    transform_batch
        Batch, or batches, that every cell is decoded in: several are averaged in equal parts. By default all batches in
        proportion to their cells in the fit; `"observed"` decodes each cell in its own batch, without correction.
    n_samples
        Draws of z to average; by default its posterior mean is decoded, without noise.
    library_size
        Total that proportions are scaled to, L; `"latent"` takes the model's library size of each cell, which gives
        expected counts.
    statistic
        `"mean"` gives expected values. `"root"` gives :math:`(E \sqrt{x})^2`, with x a count of that mean and of the
        model's dispersion. That is the scale on which MAGIC smooths: rare counts are drawn towards zero, so it suits
        heatmaps and scores on logarithms, and its values do not add up to the library size.
    key
        Name of the fit.
    key_added
        Layer to write; `f"{key}_normalized"` by default.
    inplace
        Whether to write the layer or to return a table.
    random_state
        Seed of the draws.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    `None`, or with `inplace=False` a table of cells x genes, in the order of `genes`. Written:

    `layers["scvi_normalized"]`
        Cells x genes, float32; NaN for genes that are not modelled or not among `genes`.
    `uns["scvi"]["denoised_scale"]`
        What the values of that layer are, in words.

    Raises
    ------
    KeyError
        Where there is no fit under `key`, or a gene is not modelled.
    ValueError
        For an unknown batch or cells with unseen categories.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> table = sv.tl.normalized_expression(adata, genes=list(adata.var_names[:3]), inplace=False)
    >>> table.shape
    (1021, 3)
    """
    start = _logging.info("computing normalized expression")
    fitted = load(adata, key, counts=False)
    layer = fitted.keys.normalized if key_added is None else key_added
    check_name(layer, "key_added")
    if inplace:
        check_writable(adata)
    check_number(random_state, 0, 2**63 - 1, "random_state", whole=True)
    genes = [genes] if isinstance(genes, str) else genes
    positions = gene_positions(fitted, genes)
    if n_samples is not None:
        check_number(n_samples, 1, np.inf, "n_samples", whole=True)
    if library_size != "latent":
        check_number(library_size, 1e-12, np.inf, "library_size")
    check_choice(statistic, ("mean", "root"), "statistic")
    if statistic == "root" and fitted.model.likelihood.log_normalized_to is not None:
        msg = (
            f"`statistic='root'` needs a model of counts, but the likelihood of `uns[{key!r}]` is of log-normalised "
            "values. Use `statistic='mean'`."
        )
        raise ValueError(msg)
    request = ExpressionRequest(
        batch_weights=batch_weights(fitted, transform_batch),
        library_size=None if library_size == "latent" else float(library_size),
        n_samples=n_samples,
        random_state=random_state,
        roots=statistic == "root",
    )
    cells, torch_device = fitted.read(adata), resolve_device(device)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):  # as in the fit: the same bits
        chunks = expression_chunks(fitted.model, cells, request, genes=positions, device=torch_device)
        if not inplace:
            names = pd.Index(gene_names(fitted, genes))
            values = np.empty((adata.n_obs, len(names)), np.float32)
            for rows, chunk in chunks:
                values[int(rows[0]) : int(rows[-1]) + 1] = chunk
            return pd.DataFrame(values, index=adata.obs_names, columns=names, copy=False)
        columns = fitted.gene_positions if positions is None else fitted.gene_positions[positions]
        values = fill_layer(adata, columns, chunks)
    actualise(adata)
    adata.layers[layer] = values
    if layer == fitted.keys.normalized:
        adata.uns[key] = {**adata.uns[key], SCALE: scale_name(Scale(request.library_size, request.roots))}
    _logging.closing_line("normalized expression", added=[f".layers['{layer}']"], time=start)
    return None
