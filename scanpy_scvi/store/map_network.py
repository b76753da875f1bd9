"""A network that places cells on a map <-> `uns`."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import __version__
from ..modules.map_network import MapNetwork
from .checks import listed, require_key, short
from .entry import check_weights, weights
from .identity import space_id
from .keys import Keys
from .typed import array, at, is_mapping, item, mapping, real, text, whole
from .uns import to_uns
from .write import VERSIONED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

    from ..training.fit_map import MapFit

SCHEMA = 1
FIELDS = {"basis", "use_rep", "n_hidden", "n_layers", "state"}
"""What every network has; an entry with these is one of ours."""
PLACED = "placed"
"""Key of the entry of cells that a network has placed, as opposed to those whose map it learned."""
WIDEST, DEEPEST = 2**16, 64
"""Largest sizes that are read."""


@dataclass(frozen=True)
class StoredNetwork:
    """A network with what it reads and writes."""

    network: MapNetwork
    basis: str
    """Key in `obsm` of the map."""
    use_rep: str
    """Key in `obsm` of what the network reads."""
    rep_id: str | None
    """Fingerprint of the space that this lies in, where it is known."""
    median_error: float | None
    """Median distance between where a held-out cell is and where the network places it."""
    key: str
    """Key in `uns`."""
    entry: Mapping[str, Any]


def network_key(basis: str) -> str:
    """Key in `uns` of the network for a map: `"umap_network"` for `"X_umap"`."""
    return f"{basis.removeprefix('X_')}_network"


def basis_name(adata: ad.AnnData, basis: str, *, where: str = "adata") -> str:
    """Key in `obsm` of a map, which may be named without its `X_`, as in scanpy."""
    if isinstance(basis, str) and basis not in adata.obsm and f"X_{basis}" in adata.obsm:
        return f"X_{basis}"
    require_key(basis, adata.obsm.keys(), where=f"{where}.obsm", argument="basis")
    return basis


def read_rows(adata: ad.AnnData, slot: str, argument: str, *, where: str = "adata") -> np.ndarray:
    """Finite numbers of `obsm`, a row for each cell."""
    require_key(slot, adata.obsm.keys(), where=f"{where}.obsm", argument=argument)
    place = at(f"{where}.obsm", slot)
    found = array(np.asarray(adata.obsm[slot]), place, kinds="iuf")
    if found.ndim != 2 or not found.shape[1]:
        msg = f"`{place}` has shape {found.shape}, but cells x dimensions was expected. Pass another `{argument}`."
        raise ValueError(msg)
    bad = ~np.isfinite(found).all(1)
    if bad.any():
        cell = short(str(adata.obs_names[int(bad.argmax())]))
        msg = f"`{place}` has NaN or infinite values in {bad.sum()} cells (first: {cell}). Leave those cells out."
        raise ValueError(msg)
    return found


def rep_id(adata: ad.AnnData, use_rep: str) -> str | None:
    """Fingerprint of the space that `obsm[use_rep]` lies in: weights of a fit, variances of principal components."""
    key = use_rep.removeprefix("X_")
    found = space_id(adata, key) if use_rep == Keys(key).latent else None
    if found is None and use_rep == "X_pca":
        pca = adata.uns.get("pca")
        variance = pca.get("variance") if is_mapping(pca) else None
        if isinstance(variance, np.ndarray) and variance.dtype.kind == "f":
            found = blake2b(np.ascontiguousarray(variance, "<f8").tobytes(), digest_size=16).hexdigest()
    return found


def network_entry(
    network: MapNetwork,
    fit: MapFit,
    errors: np.ndarray,
    obs_names: np.ndarray,
    params: Mapping[str, Any],
    space: str | None,
) -> dict[str, Any]:
    """Content of `uns["umap_network"]`; `errors` are the distances of held-out cells from where they are."""
    history = {name: np.array([getattr(record, name) for record in fit.history]) for name in fit.history[0]._fields}
    error = None if not len(errors) else _error(errors, float(network.out_scale), len(network.out_mean))
    stored = to_uns(
        {
            "schema": SCHEMA,
            "params": params,
            **{name: params[name] for name in ("basis", "use_rep", "n_hidden", "n_layers")},
            "n_dims": len(network.out_mean),
            "reference_id": space,
            "error": error,
            "history": history,
            "best_epoch": fit.best_epoch,
            "validation_names": [str(name) for name in obs_names[fit.validation_rows]],
            "state": {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()},
            "versions": {"scanpy-scvi": __version__, **{name: version(name) for name in VERSIONED}},
        }
    )
    assert isinstance(stored, dict)  # for the type checker: a mapping stays one
    return stored


def _error(errors: np.ndarray, scale: float, n_dims: int) -> dict[str, float]:
    """Errors in units of the map, and beside the distance of cells from its centre."""
    spread = scale * np.sqrt(n_dims)
    found = {"median": float(np.median(errors)), "mean": float(errors.mean()), "spread": float(spread)}
    return found | {"relative": found["median"] / found["spread"]}


def is_network(entry: object) -> bool:
    """Whether something in `uns` is a network of ours."""
    return is_mapping(entry) and set(entry) >= FIELDS


def networks_of(adata: ad.AnnData) -> list[str]:
    """Keys of `uns` with networks."""
    return [key for key, entry in adata.uns.items() if is_network(entry)]


def read_network(adata: ad.AnnData, key: str, *, where: str = "reference") -> StoredNetwork:
    """Rebuild the network stored under `uns[key]`.

    Raises
    ------
    KeyError
        Where there is none.
    TypeError, ValueError
        Where what is stored is not a network that this version can read.
    """
    place = at(f"{where}.uns", key)
    if not is_network(adata.uns.get(key)):
        have = networks_of(adata)
        hint = f"There are {listed(have)}." if have else "Run `scanpy_scvi.tl.learn_embedding` on it first."
        msg = f"`{place}` holds no network that places cells. {hint}"
        raise KeyError(msg)
    entry = mapping(adata.uns[key], place)
    schema = whole(item(entry, "schema", place), at(place, "schema"), 1, 10**6)
    if schema > SCHEMA:
        msg = f"`{place}` has schema {schema}, but this version reads up to {SCHEMA}. Install a newer scanpy-scvi."
        raise ValueError(msg)
    error = entry.get("error")
    return StoredNetwork(
        network=_network(entry, key, place),
        basis=text(entry["basis"], at(place, "basis")),
        use_rep=text(entry["use_rep"], at(place, "use_rep")),
        rep_id=None if "reference_id" not in entry else text(entry["reference_id"], at(place, "reference_id")),
        median_error=None if error is None else real(item(mapping(error, place), "median", place), at(place, "error")),
        key=key,
        entry=entry,
    )


def _network(entry: Mapping[str, Any], key: str, place: str) -> MapNetwork:
    """Network of the stored sizes with the stored weights; what it claims costs nothing until the arrays agree."""
    state = mapping(entry["state"], at(place, "state"))
    n_in, n_out = (
        array(item(state, name, at(place, "state")), at(place, "state", name), kinds="f").size
        for name in ("in_mean", "out_mean")
    )
    sizes = {
        "n_hidden": whole(entry["n_hidden"], at(place, "n_hidden"), 1, WIDEST),
        "n_layers": whole(entry["n_layers"], at(place, "n_layers"), 1, DEEPEST),
    }
    with torch.device("meta"):
        network = MapNetwork(n_in, n_out, **sizes)
    like = network.state_dict()
    shapes = {name: (tuple(t.shape), not t.is_floating_point()) for name, t in like.items()}
    tensors = {}
    for name, values in weights(state, shapes, key).items():
        tensors[name] = torch.empty_strided(like[name].shape, like[name].stride(), dtype=like[name].dtype)
        with np.errstate(over="ignore"):
            np.copyto(tensors[name].numpy(), values, casting="unsafe")
        check_weights(tensors[name].numpy(), name, key)
    network.load_state_dict(tensors, assign=True)
    return network.eval()
