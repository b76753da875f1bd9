"""Cells of a query -> places on the map of a reference."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from .checks import short
from .map_network import PLACED, is_network, read_rows, rep_id
from .typed import at

if TYPE_CHECKING:
    import anndata as ad
    import numpy as np

    from .map_network import StoredNetwork


def read_places(query: ad.AnnData, stored: StoredNetwork) -> np.ndarray:
    """What the network reads, of the cells of a query, which must lie in the space that it was fitted in.

    Raises
    ------
    KeyError
        Where the query does not have it.
    ValueError
        Where it is of another space, or cannot be read.
    """
    x, here = read_rows(query, stored.use_rep, "use_rep", where="query"), rep_id(query, stored.use_rep)
    place = at("query.obsm", stored.use_rep)
    of_a_fit = stored.use_rep != "X_pca"
    remedy = (
        "Map the query with `scanpy_scvi.tl.map_query`." if of_a_fit else "Project it with the reference's loadings."
    )
    if stored.rep_id is not None and here is None and of_a_fit:
        msg = f"`query.uns` has no fit or mapping for `{place}`, so its space is not known. {remedy}"
        raise ValueError(msg)
    if None not in (stored.rep_id, here) and stored.rep_id != here:
        msg = f"`{place}` lies in another space ({here}) than the network reads ({short(stored.rep_id)}). {remedy}"
        raise ValueError(msg)
    n_in = len(stored.network.in_mean)
    if x.shape[1] != n_in:
        msg = f"`{place}` has {x.shape[1]} columns, but the network reads {n_in}. {remedy}"
        raise ValueError(msg)
    return x


def is_free_for_places(query: ad.AnnData, stored: StoredNetwork, ours: frozenset[str] = frozenset()) -> bool:
    """Whether the query has no map of that name of its own: none, or one whose cells were placed by a network.

    `ours` are keys of `obsm` that other functions of this package wrote there.
    """
    return stored.basis not in query.obsm or stored.basis in ours or was_placed(query, stored.basis)


def was_placed(query: ad.AnnData, basis: str) -> bool:
    """Whether a network has placed these cells on the map."""
    found = [entry["basis"] for entry in query.uns.values() if is_network(entry) and PLACED in entry]
    return any(isinstance(name, str) and name == basis for name in found)


def write_places(query: ad.AnnData, stored: StoredNetwork, places: np.ndarray) -> list[str]:
    """Write the map, and the network beside it: the query can be a reference in turn. Return what was written."""
    query.obsm[stored.basis] = places
    query.uns[stored.key] = {**deepcopy(dict(stored.entry)), PLACED: True}
    return [f".obsm[{stored.basis!r}]", f".uns[{stored.key!r}]"]
