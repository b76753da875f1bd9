"""New cells on the map of a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _logging
from ..store.map_network import FIELDS, network_key, networks_of, read_network, rep_id
from ..store.placing import is_free_for_places, read_places, write_places
from ..store.reference import as_reference
from ..store.results import check_slot
from ..store.transfer import embeddings_told
from ..store.write import actualise
from ..training.threads import limited_threads

if TYPE_CHECKING:
    from os import PathLike

    import numpy as np
    from anndata import AnnData

    from ..store.map_network import StoredNetwork


def place_cells(
    query: AnnData, reference: AnnData | str | PathLike[str], *, basis: str = "X_umap", key: str | None = None
) -> None:
    """Place cells on the map of a reference, by the network that :func:`scanpy_scvi.tl.learn_embedding` fitted to it.

    No neighbours are looked for, and nothing is fitted: 10,000 cells take a tenth of a second. After
    :func:`scanpy_scvi.tl.map_query` it is not needed, which places its cells by itself where the reference has a
    network.

    Parameters
    ----------
    query
        Annotated data with the representation that the network reads: `obsm["X_scvi"]` in the latent space of the
        reference, or principal components with its loadings (`sc.tl.ingest` writes them).
    reference
        Annotated data with a network, or the path of such a file. It is not changed.
    basis
        The map, with its `X_` or without.
    key
        Key of the network in `reference.uns`; for `"X_umap"` it is `"umap_network"` by default.

    Returns
    -------
    `None`. Written to the query:

    `obsm["X_umap"]`
        Places on the map, float32, under the name that it has in the reference.
    `uns["umap_network"]`
        The network, marked as `placed`: the query can be a reference in turn.

    Raises
    ------
    KeyError
        Where the reference has no such network, or the query no such representation.
    ValueError
        Where the representation is of another space than the network reads, or the query has a map of that name of its
        own. The query stays as it was.

    References
    ----------
    Cho et al. 2018, Cell Systems 7:185, doi:10.1016/j.cels.2018.05.017.

    Examples
    --------
    A map of some cells serves all of them:

    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=400, density=0.3)
    >>> sv.tl.scvi(adata, max_epochs=5, progress=False)
    >>> sample = adata[::2].copy()
    >>> sample.obsm["X_map"] = sample.obsm["X_scvi"][:, :2]  # say, of `sc.tl.umap`
    >>> sv.tl.learn_embedding(sample, "X_map", max_epochs=10)
    >>> sv.tl.place_cells(adata, sample, basis="X_map")
    >>> adata.obsm["X_map"].shape
    (400, 2)
    """
    start = _logging.info("placing cells on a map")
    source = as_reference(reference)
    stored = read_network(source, network_key(basis) if key is None else key)
    check_slot(query, stored.key, FIELDS, found="holds no network that places cells")
    if source is query or not is_free_for_places(query, stored, embeddings_told(query)):
        msg = (
            f"`query.obsm[{stored.basis!r}]` exists, and no network placed these cells there: it would be overwritten. "
            "Rename or delete it first."
        )
        raise ValueError(msg)
    places = placed(stored, read_places(query, stored))
    actualise(query)
    added = write_places(query, stored, places)
    _logging.closing_line(f"placed {query.n_obs} cells on {stored.basis!r}", added=added, time=start)


def placed(stored: StoredNetwork, x: np.ndarray) -> np.ndarray:
    """Places of cells on the map; one thread is enough for so small a network."""
    with limited_threads(1):
        return stored.network.place(x)


def networks_for(query: AnnData, reference: AnnData, use_rep: str) -> list[StoredNetwork]:
    """Networks of a reference that read `obsm[use_rep]` as it is now, for maps that the query has not of its own."""
    found = [read_network(reference, key) for key in networks_of(reference)]
    found = [stored for stored in found if stored.use_rep == use_rep]
    here, fitting = rep_id(reference, use_rep), []
    for stored in found:
        if stored.rep_id != here:
            _logging.warning(
                f"`reference.uns[{stored.key!r}]` was learned in another space than that of the fit, so no cells were "
                "placed by it. Call `scanpy_scvi.tl.learn_embedding` again."
            )
        elif not is_free_for_places(query, stored, embeddings_told(query)):
            _logging.warning(
                f"The query has its own `.obsm[{stored.basis!r}]`, which was kept; delete it for the reference's map."
            )
        else:
            check_slot(query, stored.key, FIELDS, found="holds no network that places cells")
            fitting.append(stored)
    return fitting
