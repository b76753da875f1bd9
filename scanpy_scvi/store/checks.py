"""Checks of user input, each with one sentence: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from .dask_rows import computed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHECKED_AT_ONCE = 2**20
"""Stored values that are checked at a time."""
LONGEST = 80
"""Characters of a name that a message shows."""
MIN_CELLS = 10
CHUNK = 8192
"""Cells read at a time from a file."""


def get_matrix(adata: ad.AnnData, layer: str | None) -> object:
    """`adata.X` or a layer, of whatever type it is."""
    if layer is None:
        if adata.X is None:
            msg = "`adata.X` is None, but counts were expected there. Pass the layer that holds counts with `layer=`."
            raise ValueError(msg)
        matrix = adata.X
    else:
        require_key(layer, adata.layers.keys(), where="adata.layers", argument="layer")
        matrix = adata.layers[layer]
    if matrix.dtype.kind not in "biuf":
        name = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
        msg = (
            f"`{name}` has dtype {matrix.dtype}, but real numbers were expected. Convert it: "
            f"`{name} = {name}.astype('float32')`."
        )
        raise TypeError(msg)
    return matrix


def require_key(key: str, present: Iterable[str], *, where: str, argument: str) -> None:
    """Raise a KeyError that names near and present keys; a TypeError for what is no name."""
    if not isinstance(key, str):
        msg = f"`{argument}` is {key!r}, but one key of `{where}` was expected: pass its name as a string."
        raise TypeError(msg)
    present = [str(p) for p in present]
    if key in present:
        return
    near = difflib.get_close_matches(key[:LONGEST], present, n=3, cutoff=0.5)
    lowered = [p for p in present if p.lower() == key.lower()]
    hint = f"Did you mean {listed(dict.fromkeys(lowered + near))}?" if near or lowered else f"It has {listed(present)}."
    msg = f"{short(key)} was not found in `{where}`, but `{argument}` expects a key of it. {hint}"
    raise KeyError(msg)


def check_unique_genes(var_names: pd.Index) -> None:
    """Raise a ValueError that names a gene whose name occurs twice."""
    if not var_names.is_unique:
        name = var_names[var_names.duplicated()][0]
        msg = (
            f"`adata.var_names` has duplicates (first: {name!r}), but genes are matched by name. Call "
            "`adata.var_names_make_unique()`."
        )
        raise ValueError(msg)


def listed(names: Iterable[str], most: int = 10) -> str:
    """Quote names for a message, at most `most` of them."""
    names = [short(n.item() if isinstance(n, np.generic) else n) for n in names]
    return ", ".join(names[:most]) + (", …" if len(names) > most else "") if names else "nothing"


def short(name: object, *, quoted: bool = True, most: int = LONGEST) -> str:
    """Quote a name for a message; the middle of a long one is left out."""
    if isinstance(name, str) and len(name) > most:
        name = f"{name[: most // 2]}…{name[-most // 4 :]}"
    return repr(name) if quoted else str(name)


def check_is_object(adata: object) -> None:
    """Raise a TypeError for the path of a file."""
    if isinstance(adata, (str, os.PathLike)):
        msg = (
            f"`adata` is {str(adata)!r}, the path of a file, which `tl.scvi` alone takes. Open it first: "
            '`anndata.read_h5ad(path)`, or with `backed="r"` to leave its counts there.'
        )
        raise TypeError(msg)


def check_tables(adata: ad.AnnData) -> None:
    """Raise a TypeError for `obs` and `var` of :func:`anndata.experimental.read_lazy`, whose columns are not read."""
    if not (isinstance(adata.obs, pd.DataFrame) and isinstance(adata.var, pd.DataFrame)):
        msg = (
            f"`adata.obs` is a {type(adata.obs).__name__}, but a pandas table was expected. Read the tables; counts "
            "can stay where they are: `adata = anndata.AnnData(adata.X, adata.obs.to_memory(), adata.var.to_memory())`."
        )
        raise TypeError(msg)


def csr_chunks(matrix: object, genes: np.ndarray | None) -> Iterator[sparse.csr_array]:
    """Row chunks of any matrix as CSR in float32, only the columns `genes` (positions; None for all).

    Reads matrices on disk and of dask piece by piece; a matrix in memory is one chunk.
    """
    if isinstance(matrix, ad.abc.CSCDataset):  # stored by genes: any of its cells takes all of it
        matrix = matrix.to_memory()
    in_memory = isinstance(matrix, np.ndarray) or sparse.issparse(matrix)
    n_cells = matrix.shape[0]  # type: ignore[attr-defined]
    step = n_cells if in_memory else CHUNK
    for start in range(0, n_cells, max(step, 1)):
        part = matrix if in_memory else computed(matrix[start : start + step])  # type: ignore[index]
        if genes is not None:
            part = part[:, genes]  # type: ignore[index]
        yield tidy(sparse.csr_array(part))


def tidy(chunk: sparse.csr_array) -> sparse.csr_array:
    """Rows with sorted columns, without zeros or duplicates; the user's own arrays stay as they are."""
    if not chunk.has_canonical_format or (chunk.data == 0).any():
        chunk = chunk.astype(np.float32)  # a copy, and sums without overflow
        chunk.sum_duplicates()
        chunk.eliminate_zeros()
    return chunk


def check_counts(data: np.ndarray, adata: ad.AnnData, layer: str | None) -> None:
    """Raise a ValueError unless all stored values are finite, non-negative whole numbers."""
    name = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    for start in range(0, len(data), CHECKED_AT_ONCE):  # the checks need memory of their own
        _check_part(data[start : start + CHECKED_AT_ONCE], name, adata, layer)


def _check_part(data: np.ndarray, name: str, adata: ad.AnnData, layer: str | None) -> None:
    for bad, what in _defects(data):
        if bad.any():
            first = data[int(bad.argmax())]
            found = f"`{name}` has {what} values (first: {first:.6g}), but raw counts were expected."
            msg = f"{found} {advise_layer(adata, layer)}"
            raise ValueError(msg)


def _defects(data: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    yield ~np.isfinite(data), "NaN or infinite"
    yield data < 0, "negative"
    yield data != np.rint(data), "non-integer"


def looks_like_counts(matrix: object, n_cells: int = 200) -> bool:
    """Whether the first cells of a matrix hold finite, non-negative whole numbers, not all zero."""
    part = computed(matrix[:n_cells])  # type: ignore[index]
    data = part.data if sparse.issparse(part) else np.asarray(part).ravel()
    data = np.asarray(data)
    if data.dtype.kind not in "iufb" or not data.size:
        return False
    return bool(np.any(data != 0)) and not any(bad.any() for bad, _ in _defects(data))


def count_layers(adata: ad.AnnData) -> list[str | None]:
    """Where counts seem to lie: layer names, and None for `X`."""
    places: list[str | None] = [None] if adata.X is not None and looks_like_counts(adata.X) else []
    layers = [name for name in adata.layers if name is not None]  # anndata 0.13 lists X there too, as None
    return places + [name for name in layers if looks_like_counts(adata.layers[name])]


def advise_layer(adata: ad.AnnData, layer: str | None) -> str:
    """What to do about a matrix that is not counts."""
    others = [place for place in count_layers(adata) if place != layer]
    if others:
        return f"Pass `layer={others[0]!r}`, which looks like counts."
    if adata.raw is not None and looks_like_counts(adata.raw.X):
        return "`adata.raw.X` looks like counts: use `adata.raw.to_adata()`."
    return "No layer looks like counts: start again from the raw count matrix."


def check_empty_cells(totals: np.ndarray, obs_names: Iterable[str], *, masked: bool, fitting: bool = True) -> None:
    """Raise a ValueError that names cells without counts; `masked` where not all genes are modelled."""
    empty = np.flatnonzero(totals <= 0)
    if len(empty):
        names = np.asarray(obs_names)[empty[:3]]
        genes = "the modelled genes" if masked else "any gene"
        remedy = (
            f"Remove them{', or pass `mask_var=None` to model all genes' if fitting else ''}."
            if masked
            else "Remove them with `sc.pp.filter_cells(adata, min_counts=1)`."
        )
        msg = (
            f"{len(empty)} of {len(totals)} cells have no counts in {genes} (first: {listed(names)}), but every cell "
            f"needs at least one. {remedy}"
        )
        raise ValueError(msg)
