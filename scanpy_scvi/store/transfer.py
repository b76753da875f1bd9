"""Labels of a reference -> columns of a query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from .checks import require_key
from .covariates import group_names
from .identity import space_id
from .keys import Keys, check_name
from .results import check_slot
from .uns import from_uns_strings, to_uns
from .write import actualise

if TYPE_CHECKING:
    import anndata as ad

UNKNOWN = "Unknown"
UNKNOWN_COLOR = "#bdbdbd"


class Label(NamedTuple):
    """One column of the reference: codes of `classes` (-1 where missing), or numbers (NaN) where there are none."""

    name: str
    values: np.ndarray
    classes: tuple[str, ...]
    colors: tuple[str, ...]
    """One for each class, or none at all."""

    def names(self, *, unknown: bool) -> tuple[str, ...]:
        """Classes that cells may get, with Unknown or without."""
        return (*self.classes, UNKNOWN) if unknown and self.classes and UNKNOWN not in self.classes else self.classes

    @property
    def known(self) -> np.ndarray:
        """Cells that have a label."""
        return self.values >= 0 if self.classes else np.isfinite(self.values)


class Told(NamedTuple):
    """What was said of each new cell about one label."""

    label: Label
    values: np.ndarray
    """Codes of `names`, or numbers."""
    names: tuple[str, ...]
    """Classes of the label, and Unknown where cells may be called that."""
    confidence: np.ndarray
    shares: np.ndarray | None
    """Probabilities, cells x classes."""


class Columns(NamedTuple):
    """Names of what is written for one label."""

    label: str

    @property
    def predicted(self) -> str:
        """`obs`: the label."""
        return f"{self.label}_pred"

    @property
    def confidence(self) -> str:
        """`obs`: how sure it is."""
        return f"{self.label}_conf"

    @property
    def shares(self) -> str:
        """`obsm`: probability of each class."""
        return f"{self.label}_prob"

    @property
    def colors(self) -> str:
        """`uns`: colours of the classes."""
        return f"{self.label}_pred_colors"

    def slots(self) -> list[tuple[str, str]]:
        """All of them."""
        return [("obs", self.predicted), ("obs", self.confidence), ("obsm", self.shares), ("uns", self.colors)]


def read_latents(query: ad.AnnData, reference: ad.AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Latent states of both, which must be of one space.

    Raises
    ------
    ValueError
        Where one has none, or they are of different fits, or cannot be compared.
    """
    spaces = {name: space_id(a, key) for name, a in (("query", query), ("reference", reference))}
    for name, space in spaces.items():
        if space is None:
            remedy = "Map it with `scanpy_scvi.tl.map_query` first." if name == "query" else "Fit it first."
            msg = f"`{name}.uns` has no fit or mapping under {key!r}, so its latent space is not known. {remedy}"
            raise ValueError(msg)
    if spaces["query"] != spaces["reference"]:
        msg = (
            f"The query lies in the latent space of another fit ({spaces['query']}) than the reference "
            f"({spaces['reference']}), so distances mean nothing. Map it with `scanpy_scvi.tl.map_query`."
        )
        raise ValueError(msg)
    z, z_reference = _latent(query, "query", key), _latent(reference, "reference", key)
    if z.shape[1] != z_reference.shape[1]:
        msg = (
            f"`obsm[{Keys(key).latent!r}]` has {z.shape[1]} columns in the query, but {z_reference.shape[1]} in the "
            "reference. Map the query with `scanpy_scvi.tl.map_query`."
        )
        raise ValueError(msg)
    if len(z_reference) < 2:
        msg = f"`reference` has {len(z_reference)} cells, but at least two are needed to tell distances."
        raise ValueError(msg)
    return z, z_reference


def _latent(adata: ad.AnnData, name: str, key: str) -> np.ndarray:
    slot = Keys(key).latent
    if slot not in adata.obsm:
        msg = f"`{name}.obsm[{slot!r}]` was not found, but neighbours are looked for there. Map or fit again."
        raise ValueError(msg)
    z = np.asarray(adata.obsm[slot])
    if z.ndim != 2 or not z.shape[1] or z.dtype.kind != "f" or not np.isfinite(z).all():
        msg = f"`{name}.obsm[{slot!r}]` must hold finite numbers, cells x dimensions. Map or fit again."
        raise ValueError(msg)
    return z


def read_label(reference: ad.AnnData, name: str) -> Label:
    """Read a column of `reference.obs`; numbers stay numbers, everything else is categories in their order."""
    check_name(name, "label_keys")
    require_key(name, reference.obs.columns, where="reference.obs", argument="label_keys")
    column = reference.obs[name]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if not np.isfinite(values).any():
            msg = f"`reference.obs[{name!r}]` has no number for any cell. Pass another column."
            raise ValueError(msg)
        return Label(name, values, (), ())
    codes, classes = group_names(reference, name, "label_keys")
    return Label(name, codes, tuple(classes), _colors(reference, name, classes))


def _colors(reference: ad.AnnData, name: str, classes: list[str]) -> tuple[str, ...]:
    """Colours of the classes, or none where the reference has not one for each."""
    column, colors = reference.obs[name], from_uns_strings(reference.uns.get(f"{name}_colors", ()))
    names = [str(c) for c in column.cat.categories] if isinstance(column.dtype, pd.CategoricalDtype) else classes
    if len(colors) < len(names):
        return ()
    return tuple(colors[names.index(c)] for c in classes)


def find_embedding(reference: ad.AnnData, embedding: str) -> tuple[str, np.ndarray] | None:
    """Name in `obsm` and coordinates of an embedding of the reference, with `X_` before it or not.

    None where it is the UMAP, which is asked for by default, and there is none.
    """
    name = next((n for n in (f"X_{embedding}", embedding) if n in reference.obsm), None)
    if name is None:
        if embedding == "umap":
            return None
        require_key(embedding, reference.obsm.keys(), where="reference.obsm", argument="embedding")
    coordinates = np.asarray(reference.obsm[name])
    if coordinates.dtype.kind not in "iuf" or not np.isfinite(coordinates).all():
        msg = f"`reference.obsm[{name!r}]` must hold finite numbers to be averaged. Pass another `embedding`, or None."
        raise ValueError(msg)
    return str(name), coordinates


def written_before(query: ad.AnnData, keys: Keys) -> set[str]:
    """Slots that an earlier transfer wrote, as `slot:key`."""
    entry = query.uns.get(keys.transfer)
    ours = isinstance(entry, Mapping) and {"params", "written"} <= set(entry)
    return set(from_uns_strings(entry["written"])) if ours else set()


def embeddings_told(query: ad.AnnData) -> frozenset[str]:
    """Keys of `obsm` that transfers wrote, from whatever fit."""
    fits = [name.removesuffix("_transfer") for name in query.uns if name.endswith("_transfer")]
    slots = [slot for fit in fits for slot in written_before(query, Keys(fit))]
    return frozenset(slot.removeprefix("obsm:") for slot in slots if slot.startswith("obsm:"))


def check_free_for_transfer(query: ad.AnnData, keys: Keys, labels: list[Label]) -> None:
    """Raise a ValueError where something would be overwritten that no earlier transfer wrote."""
    check_slot(query, keys.transfer, {"params", "written"}, found="was not written by `transfer_labels`")
    ours = written_before(query, keys)
    slots = [slot for label in labels for slot in Columns(label.name).slots()]
    slots.append(("obs", keys.reference_distance))
    taken = [f"{s}[{k!r}]" for s, k in slots if k in getattr(query, s) and f"{s}:{k}" not in ours]
    if taken:
        msg = (
            f"`query.{taken[0]}` exists and was not written by `transfer_labels`, which would overwrite it. Rename or "
            "delete it first."
        )
        raise ValueError(msg)


def write_transfer(
    query: ad.AnnData,
    keys: Keys,
    told: list[Told],
    distance: np.ndarray,
    embedded: tuple[str, np.ndarray] | None,
    entry: Mapping[str, Any],
) -> list[str]:
    """Write all results and the entry in `uns`; return what was written."""
    earlier = query.uns.get(keys.transfer, {})
    before = written_before(query, keys)
    stored = to_uns({**entry, "labels": {t.label.name: _described(t.label) for t in told}})
    assert isinstance(stored, dict)  # for the type checker: a mapping stays one
    stored["labels"] = {**earlier.get("labels", {}), **stored["labels"]}
    actualise(query)
    slots = [slot for t in told for slot in _write_told(query, t)]
    query.obs[keys.reference_distance] = distance.astype(np.float32)
    slots.append(("obs", keys.reference_distance))
    if embedded is not None:
        query.obsm[embedded[0]] = embedded[1]
        slots.append(("obsm", embedded[0]))
    written = sorted(before | {f"{slot}:{key}" for slot, key in slots})
    stored["written"] = np.array([w for w in written if _there(query, w)], object)
    query.uns[keys.transfer] = stored
    return [f".{slot}[{key!r}]" for slot, key in (*slots, ("uns", keys.transfer))]


def _described(label: Label) -> dict[str, Any]:
    return {"kind": "categorical", "classes": label.classes} if label.classes else {"kind": "continuous"}


def _write_told(query: ad.AnnData, told: Told) -> list[tuple[str, str]]:
    """Write one label, and remove what an earlier call wrote for it and this one does not."""
    columns, label = Columns(told.label.name), told.label
    for slot, key in columns.slots():
        if key in getattr(query, slot):
            del getattr(query, slot)[key]
    slots = [("obs", columns.predicted), ("obs", columns.confidence)]
    query.obs[columns.confidence] = told.confidence.astype(np.float32)
    if not label.classes:
        query.obs[columns.predicted] = told.values
        return slots
    query.obs[columns.predicted] = pd.Categorical.from_codes(told.values, list(told.names))
    if label.colors:
        colors = [*label.colors, UNKNOWN_COLOR][: len(told.names)]
        query.uns[columns.colors] = np.array(colors, object)
        slots.append(("uns", columns.colors))
    if told.shares is not None:
        query.obsm[columns.shares] = told.shares.astype(np.float32)
        slots.append(("obsm", columns.shares))
    return slots


def _there(query: ad.AnnData, written: str) -> bool:
    slot, key = written.split(":", 1)
    return key in getattr(query, slot)
