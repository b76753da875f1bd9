"""Paths through latent space, and what is expressed along them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra
from sklearn.neighbors import NearestNeighbors

from ..training.batches import CellTable, minibatches
from .expression import proportions_at

if TYPE_CHECKING:
    from ..modules.vae import VAE

CHUNK = 512


class LatentPath(NamedTuple):
    """Points that are evenly spaced along a path."""

    position: np.ndarray
    """Share of the length that lies behind, from 0 to 1, (n_steps,)."""
    z: np.ndarray
    """(n_steps, n_latent), float32."""
    through: np.ndarray
    """Numbers of the cells that it runs through."""


def straight_path(start: np.ndarray, end: np.ndarray, n_steps: int) -> LatentPath:
    """z(t) = (1 - t) start + t end."""
    return _evenly(np.stack([start, end]), n_steps, np.empty(0, np.int64))


def path_through_cells(
    mean: np.ndarray,
    neighbours: tuple[np.ndarray, np.ndarray],
    ends: tuple[np.ndarray, np.ndarray],
    nearest_cells: tuple[int, int],
    n_steps: int,
) -> LatentPath:
    """Shortest path over a graph of neighbours, with the squared distance as the length of an edge.

    Squared lengths make many short steps cheaper than one long one, so the path keeps to where cells are. Where
    neighbours do not connect the two ends, the shortest bridges between what they do connect are added.

    Parameters
    ----------
    mean
        Where the cells are, (n_cells, n_latent).
    neighbours
        Numbers of each cell's neighbours, and their distances.
    ends
        Where the path begins and ends; from there it goes to the nearest cells.
    nearest_cells
        Numbers of the cells nearest to the two ends.
    n_steps
        Points wanted.
    """
    indices, distances = neighbours
    cells = np.repeat(np.arange(len(mean)), indices.shape[1])
    length = np.maximum(distances.ravel().astype(np.float64) ** 2, 1e-12)  # no edge of a sparse graph may be zero
    graph = sparse.csr_array((length, (cells, indices.ravel())), shape=(len(mean), len(mean)))
    source, target = nearest_cells
    graph = graph + _bridges(mean, graph, source, target)
    _, before = dijkstra(graph, directed=False, indices=source, return_predecessors=True)
    through = [target]
    while through[-1] != source:
        through.append(int(before[through[-1]]))
    rows = np.asarray(through[::-1])
    return _evenly(np.concatenate([ends[0][None], mean[rows], ends[1][None]]), n_steps, rows)


def _bridges(mean: np.ndarray, graph: sparse.csr_array, source: int, target: int) -> sparse.csr_array:
    """Edges that connect `source` with `target`: from all that is reached, the shortest to a cell that is not."""
    part = connected_components(graph, directed=False)[1]
    found = []
    while part[source] != part[target]:
        reached = part == part[source]
        outside = NearestNeighbors(n_neighbors=1).fit(mean[~reached])
        distances, indices = outside.kneighbors(mean[reached])
        best = int(distances[:, 0].argmin())
        cell, other = np.flatnonzero(reached)[best], np.flatnonzero(~reached)[indices[best, 0]]
        found.append((max(float(distances[best, 0]) ** 2, 1e-12), cell, other))
        part[part == part[other]] = part[source]
    lengths, cells, others = (np.array(column) for column in zip(*found, strict=True)) if found else ([], [], [])
    return sparse.csr_array((lengths, (cells, others)), shape=graph.shape)


def _evenly(corners: np.ndarray, n_steps: int, through: np.ndarray) -> LatentPath:
    """Points at equal distances along a line with corners; the first and the last are its ends, exactly."""
    steps = np.linalg.norm(np.diff(corners.astype(np.float64), axis=0), axis=1)
    position = np.linspace(0, 1, n_steps)
    reached = np.concatenate([[0.0], np.cumsum(steps)])
    keep = np.concatenate([[True], steps > 0])
    if reached[-1] == 0:
        return LatentPath(position, np.repeat(corners[:1], n_steps, axis=0).astype(np.float32), through)
    at = reached[keep] / reached[-1]
    z = np.stack([np.interp(position, at, column) for column in corners[keep].T], axis=1).astype(np.float32)
    z[0], z[-1] = corners[0], corners[-1]
    return LatentPath(position, z, through)


@torch.no_grad()
def expression_along(
    model: VAE,
    table: CellTable,
    path: LatentPath,
    ends: tuple[int, int],
    *,
    batch_weights: np.ndarray | None,
    genes: np.ndarray | None,
    device: torch.device,
) -> np.ndarray:
    """Proportions along a path, (n_steps, n_genes), float32.

    Covariates are those of the cells at the two ends: (1 - t) rho(z_t, c_source) + t rho(z_t, c_target).
    """
    model = model.to(device).eval()
    parts = []
    for rows in minibatches(np.arange(len(path.z)), CHUNK):
        z = torch.from_numpy(path.z[rows]).to(device)
        share = torch.from_numpy(path.position[rows].astype(np.float32)).to(device)[:, None]
        source, target = (
            proportions_at(model, z, table.take(np.full(len(rows), end)).to(device), batch_weights) for end in ends
        )
        mixed = torch.lerp(source, target, share)
        parts.append(mixed if genes is None else mixed[:, torch.from_numpy(genes).to(device)])
    return torch.cat(parts).cpu().numpy()
