"""A path between two cells, or two groups of cells, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from .. import _logging
from ..metrics.neighbours import nearest
from ..posterior import latent_moments
from ..posterior.abundance import choose_bandwidth
from ..posterior.mixture import log_density
from ..posterior.paths import expression_along, path_through_cells, straight_path
from ..store.checks import listed
from ..store.covariates import group_names
from ..store.load import load
from ..store.results import check_slot
from ..store.uns import to_uns
from ..store.write import actualise
from ..training.device import resolve_device
from ..training.threads import limited_to_useful
from ._assemble import check_choice, check_number
from ._presets import recorded, resolve_options
from ._requests import batch_weights, gene_names, gene_positions, plain_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from ..posterior import LatentMoments

UNSTORED = {"genes", "key_added", "device"}
COMPARED = 500
"""Cells whose own log densities tell what is usual."""
QUANTILES = (0.05, 0.5, 0.95)


def interpolate(
    adata: AnnData,
    *,
    source: str,
    target: str,
    groupby: str | None = None,
    path: Literal["straight", "data"] = "straight",
    n_steps: int = 50,
    n_neighbors: int = 15,
    genes: Sequence[str] | None = None,
    library_size: float = 1e4,
    transform_batch: str | Sequence[str] | None = None,
    key: str = "scvi",
    key_added: str | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> None:
    r"""Walk from one cell, or group of cells, to another through latent space, and decode every step.

    .. math::

        z_t = (1 - t)\, z_a + t\, z_b, \qquad
        \tilde x_g(t) = L \sum_b w_b\, \rho_g(z_t, b), \qquad
        \log \hat p(z_t) = \log \frac1N \sum_n N(z_t;\, m_n, \mathrm{diag}\, v_n)

    The last is the log density under the aggregate posterior, the mixture of all cells' posteriors. Where it falls far
    below what is usual for cells, the path runs through empty space, and what is decoded there was never seen. Cells at
    the ends of the path, and those that it runs through, do not vouch for themselves: they are left out of the mixture.

    A path is an ordering that the model makes up. It is no trajectory in time.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`.
    source, target
        Where the path begins and ends: names of cells, whose posterior means are taken, or with `groupby` names of
        groups, of which the mean of the posterior means is taken.
    groupby
        Column of `obs` with the groups.
    path
        `"straight"`, as above; `"data"` follows the cells: the shortest path over the graph of nearest neighbours with
        squared distances as lengths, which prefers many short steps to a long one. Where that graph falls into parts,
        they are connected by the shortest bridges, which the density shows.
    n_steps
        Points on the path, evenly spaced along it, ends included.
    n_neighbors
        Neighbours in that graph.
    genes
        Names of the genes wanted; all modelled genes by default.
    library_size
        Total that proportions are scaled to, L, the same for the whole path.
    transform_batch
        Batches that are decoded in, as in :func:`~scanpy_scvi.tl.normalized_expression`. Further covariates pass from
        those of the source to those of the target: both are decoded, and averaged with weights 1 - t and t. A group has
        those of the cell nearest to its mean.
    key
        Name of the fit.
    key_added
        Key of the result in `uns`; `f"{key}_interpolation"` by default.
    random_state
        Seed of the neighbour search, which is exact up to 20,000 cells. Nothing else is random.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    `None`. Written:

    `uns["scvi_interpolation"]`
        `params`; `position` along the path from 0 to 1 (n_steps); `latent` (n_steps x n_latent); `log_density`
        (n_steps); `expression` (n_steps x n_genes); `genes`; `usual_log_density`, the quantiles 0.05, 0.5 and 0.95 of
        the log density at 500 cells, each left out of the mixture; and with `path="data"` the names of the cells that
        it runs `through`.

    Raises
    ------
    KeyError
        Where there is no fit under `key`, or no such cell, group or gene.
    ValueError
        For an option out of range, or an unknown batch. `adata` stays as it was.

    References
    ----------
    Makhzani et al. 2016, Adversarial autoencoders, arXiv 1511.05644, for the aggregate posterior.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.interpolate(adata, source="label_0", target="label_1", groupby="label", n_steps=20)
    >>> adata.uns["scvi_interpolation"]["expression"].shape
    (20, 200)
    """
    given = resolve_options(interpolate, locals())
    start = _logging.info("interpolating")
    check_choice(path, ("straight", "data"), "path")
    check_number(n_steps, 2, 1e6, "n_steps", whole=True)
    check_number(n_neighbors, 1, np.inf, "n_neighbors", whole=True)
    check_number(library_size, 1e-12, np.inf, "library_size")
    check_number(random_state, 0, 2**32 - 1, "random_state", whole=True)
    fitted = load(adata, key, counts=False)
    slot = f"{key}_interpolation" if key_added is None else key_added
    check_slot(adata, slot, {"params", "log_density"}, found="holds no interpolation")
    genes = [genes] if isinstance(genes, str) else genes
    positions, weights = gene_positions(fitted, genes), batch_weights(fitted, transform_batch)
    rows = [_rows(adata, name, groupby, argument) for name, argument in ((source, "source"), (target, "target"))]
    cells, torch_device = fitted.read(adata), resolve_device(device)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        latent = latent_moments(fitted.model, cells, device=torch_device)
        ends = _Ends.of(latent.mean, *rows)
        if path == "straight":
            found = straight_path(*ends.z, int(n_steps))
        else:
            graph = nearest(latent.mean, n_neighbors=int(n_neighbors), random_state=int(random_state))
            found = path_through_cells(latent.mean, graph, ends.z, ends.cells, int(n_steps))
        rho = expression_along(
            fitted.model, cells, found, ends.cells, batch_weights=weights, genes=positions, device=torch_device
        )
    own = found.through if groupby is not None else np.union1d(found.through, ends.cells)
    others = np.setdiff1d(np.arange(adata.n_obs), own)
    bandwidth = 0.0 if latent.var is not None else choose_bandwidth(latent.mean, latent.spread(), np.zeros(adata.n_obs))
    params = {k: v for k, v in recorded(interpolate, given).items() if k not in UNSTORED}
    params["transform_batch"] = plain_batches(transform_batch)
    entry = {
        "params": params,
        "position": found.position,
        "latent": found.z,
        "log_density": log_density(found.z, latent.mean[others], latent.spread()[others], bandwidth=bandwidth),
        "usual_log_density": _usual(latent, bandwidth),
        "expression": (rho * np.float32(library_size)),
        "genes": gene_names(fitted, genes),
    }
    if path == "data":
        entry["through"] = [str(name) for name in adata.obs_names[found.through]]
    stored = to_uns(entry)
    actualise(adata)
    adata.uns[slot] = stored
    _logging.closing_line(f"{source} to {target} in {n_steps} steps", added=[f".uns[{slot!r}]"], time=start)


class _Ends(NamedTuple):
    """The two ends of a path."""

    z: tuple[np.ndarray, np.ndarray]
    cells: tuple[int, int]
    """The cells there: the named ones, or those nearest to the means of the groups."""

    @classmethod
    def of(cls, mean: np.ndarray, source: np.ndarray, target: np.ndarray) -> _Ends:
        z = [mean[rows].mean(0, dtype=np.float64).astype(np.float32) for rows in (source, target)]
        near = [
            int(rows[((mean[rows] - at) ** 2).sum(1).argmin()]) for rows, at in zip((source, target), z, strict=True)
        ]
        return cls((z[0], z[1]), (near[0], near[1]))


def _rows(adata: AnnData, name: str, groupby: str | None, argument: str) -> np.ndarray:
    """Cells with that name, or of that group."""
    if groupby is None:
        rows = np.flatnonzero(adata.obs_names == name)
        if len(rows) != 1:
            found = "no cell" if not len(rows) else f"{len(rows)} cells"
            msg = (
                f"`{argument}` is {name!r}, but `adata.obs_names` has {found} of that name. Pass the name of one cell, "
                "or `groupby=` for groups."
            )
            raise KeyError(msg)
        return rows
    codes, names = group_names(adata, groupby, "groupby")
    if str(name) not in names:
        msg = f"`{argument}` is {name!r}, but `adata.obs[{groupby!r}]` has the groups {listed(names)}."
        raise KeyError(msg)
    return np.flatnonzero(codes == names.index(str(name)))


def _usual(latent: LatentMoments, bandwidth: float) -> np.ndarray:
    """Quantiles of the log density at evenly chosen cells, each left out of the mixture."""
    chosen = np.unique(np.linspace(0, len(latent.mean) - 1, COMPARED).astype(np.int64))
    return np.quantile(
        log_density(latent.mean[chosen], latent.mean, latent.spread(), own=chosen, bandwidth=bandwidth), QUANTILES
    )
