"""A fit, for scvi-tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _logging
from ..store.checks import listed
from ..store.load import find_entry, load
from ..store.scvi_tools.read import MODEL_FILE
from ..store.scvi_tools.setup import model_attributes
from ..store.scvi_tools.write import model_content, save
from ..store.slim import counts_are_dropped, needs_counts

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData

    from ..store.load import Fitted

ADATA_FILE = "adata.h5ad"


def to_scvi_tools(
    adata: AnnData,
    path: str | PathLike[str],
    *,
    key: str = "scvi",
    prefix: str = "",
    save_anndata: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a fit as a model that ``scvi.model.SCVI.load`` opens; scvi-tools need not be installed.

    The file is that of scvi-tools 1.4. What scvi-tools has no place for is written in other words, so that the numbers
    stay: covariates that enter the output layer here are carried there by further hidden units, one for each category
    and two for each continuous covariate, and the standardisation of continuous covariates is folded into the weights.
    The file holds plain containers, text, numbers, NumPy arrays and tensors only.

    Parameters
    ----------
    adata
        Annotated data with a fit.
    path
        Folder to write ``model.pt`` into; made where there is none.
    key
        The ``key_added`` of the fit.
    prefix
        Put in front of the names of the files, as in ``SCVI.load(…, prefix=…)``.
    save_anndata
        Whether to write ``adata.h5ad`` beside it, with the genes of the model alone, so that ``SCVI.load`` needs no
        `adata`.
    overwrite
        Whether to replace files that are there.

    Returns
    -------
    `None`. Without `save_anndata`, pass the cells with the genes of the model, in its order, to `SCVI.load`:
    ``adata[:, list(adata.uns["scvi"]["var_names"])].copy()``.

    Raises
    ------
    FileExistsError
        Where there is such a file already.
    ValueError
        For a fit with size factors, with layer normalisation and covariates in later layers, or whose cells were mapped
        at the depth of a reference: scvi-tools cannot express those; with `save_anndata`, where the counts or some
        genes of the model are missing. Nothing is written then.
    KeyError
        Where there is no such fit.

    References
    ----------
    Gayoso, Lopez, Xing et al. 2022, Nat Biotechnol 40:163.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> folder = mkdtemp()
    >>> sv.tl.to_scvi_tools(adata, folder, save_anndata=True)
    >>> sorted(file.name for file in Path(folder).iterdir())
    ['adata.h5ad', 'model.pt']
    """
    start = _logging.info("writing a model for scvi-tools")
    folder = Path(path)
    names = [f"{prefix}{MODEL_FILE}", *([f"{prefix}{ADATA_FILE}"] if save_anndata else [])]
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        msg = f"{folder / there[0]} exists. Pass `overwrite=True` to replace it, or another folder or `prefix`."
        raise FileExistsError(msg)
    fitted, entry = load(adata, key), find_entry(adata, key)
    var_names = np.array(fitted.var_names, dtype=object)
    files: dict[str, Any] = {names[0]: model_content(fitted, model_attributes(adata, fitted, entry), var_names)}
    if save_anndata:
        files[names[1]] = _cells(adata, fitted)
    save(folder, files)
    _logging.closing_line(f"wrote {', '.join(names)} for scvi-tools into {folder}", time=start)


def _cells(adata: AnnData, fitted: Fitted) -> AnnData:
    """Cells with the genes of the model alone, in its order."""
    if counts_are_dropped(adata, fitted.entry):
        raise needs_counts(fitted.keys.key_added, fitted.entry)
    absent = [name for name, at in zip(fitted.var_names, fitted.gene_positions, strict=True) if at < 0]
    if absent:
        msg = (
            f"`adata` lacks {len(absent)} of the model's genes (first: {listed(absent, most=3)}), which `SCVI.load` "
            "asks for. Pass `save_anndata=False`, or add them with counts of zero first."
        )
        raise ValueError(msg)
    return adata[:, fitted.gene_positions].to_memory()
