"""How far a cell's results can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from .. import _logging
from ..metrics.neighbours import nearest
from ..posterior import held_out_bound, latent_moments
from ..posterior.bound_trend import BoundTrend, percentile
from ..store.course import held_out_names
from ..store.identity import space_id
from ..store.keys import check_name
from ..store.load import Fitted, find_entry, load
from ..store.results import check_slot
from ..store.uns import to_uns
from ..store.write import actualise
from ..training.device import resolve_device
from ..training.threads import limited_to_useful
from ._assemble import check_number
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

LEAST_HELD_OUT = 50
"""Held-out cells that are needed to be compared with; with fewer, all reference cells are."""
COLUMNS = ("bound_percentile", "novelty", "latent_uncertainty", "trust")
UNSTORED = {"reference", "key_added", "device"}


def trust(
    adata: AnnData,
    *,
    reference: AnnData | None = None,
    n_samples: int = 10,
    n_neighbors: int = 10,
    key: str = "scvi",
    key_added: str | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> None:
    r"""How well the model knows each cell: bound, novelty, uncertainty, and one number for trust.

    Doublets, broken cells, and kinds of cells that the model has not learned get low values.

    - **Bound percentile** :math:`p_n`. The evidence bound of a cell depends on its total and on its batch, so what is
      ranked is how far it lies from what is usual: :math:`(b_n - \hat b(t_n, s_n)) / \hat d(t_n)`, with a restricted
      cubic spline of the log total t, an intercept for each batch s, and a spread that depends on t, all fitted to the
      reference cells. Cells that the model was trained on have better bounds than others, so they are
      ranked among themselves; held-out and new cells are ranked among the held-out cells.
    - **Novelty** :math:`\nu_n`. Percentile of the mean distance to the `n_neighbors` nearest other reference cells,
      between posterior means of z, among such distances of the reference cells.
    - **Uncertainty** :math:`u_n = \sum_d w_d \frac{v_{nd}}{w_d + \bar v_d} / \sum_d w_d`: variance v of the cell's
      posterior over that of all reference cells together, w being the variance of their posterior means. Dimensions
      count by w, so that those which the model does not use count for nothing. 0: the cell's place is known exactly;
      1: as little as without its counts. 0 for all where a fit gives its cells no variance.
    - **Trust** :math:`\tau_n = \sqrt{p_n (1 - \nu_n)}`, the geometric mean. Uncertainty is left out: it tells how
      deeply a cell was sequenced, and doublets have less of it than others.

    Percentiles rank; they do not accuse. A tenth of the cells of perfect data have a bound percentile below 0.1. When
    artefacts were part of the fit, the model has learned them too, and they are harder to tell.

    Parameters
    ----------
    adata
        Annotated counts to judge. Counts that lie in a file stay there; memory is that of the latent states and of the
        search for neighbours.
    reference
        Annotated counts with the fit under `uns[key]`: what `adata` is compared with, for new cells. By default `adata`
        itself.
    n_samples
        Draws of z that a bound is averaged over.
    n_neighbors
        Neighbours in the latent space.
    key
        Name of the fit.
    key_added
        Begins the names of what is written; `key` by default.
    random_state
        Seed of the draws, and of the neighbour search, which is exact up to 20,000 reference cells and by pynndescent
        beyond.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    `None`. Written:

    `obs["scvi_bound_percentile"]`, `obs["scvi_novelty"]`, `obs["scvi_latent_uncertainty"]`, `obs["scvi_trust"]`
        The four numbers above, float64.
    `uns["scvi_trust"]`
        `params`, and how many cells the bounds were compared with: `n_reference`, `n_held_out`.

    Raises
    ------
    KeyError
        Where there is no fit under `key`, or genes of the model are missing.
    ValueError
        Where an option cannot be used, or cells have unseen categories. `adata` stays as it was.

    References
    ----------
    Kingma and Welling 2014, arXiv 1312.6114, for the bound. The comparison and the formula of trust are this package's
    own; :doc:`/benchmarks` shows what they find.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=300, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.trust(adata)
    >>> bool(adata.obs["scvi_trust"].between(0, 1).all())
    True
    """
    given = resolve_options(trust, locals())
    start = _logging.info("judging cells")
    check_number(n_samples, 1, np.inf, "n_samples", whole=True)
    check_number(n_neighbors, 1, np.inf, "n_neighbors", whole=True)
    check_number(random_state, 0, 2**32 - 1, "random_state", whole=True)
    source = adata if reference is None else reference
    fitted = load(source, key)
    prefix = key if key_added is None else key_added
    check_name(prefix, "key_added")
    beside = [("obs", f"{prefix}_{name}") for name in COLUMNS]
    found = "was not written by `trust`"
    check_slot(adata, f"{prefix}_trust", {"params", "n_reference"}, found=found, beside=beside)
    judge = _Judge(int(n_samples), int(random_state), resolve_device(device))
    known = judge.see(fitted, source)
    held_out = _held_out(source, key)
    if reference is None:
        columns = _compare(known, held_out, known, held_out, int(n_neighbors), int(random_state), own=True)
    else:
        is_mapped = space_id(adata, key) == space_id(reference, key)  # then its own model knows its batches and genes
        new = judge.see(load(adata, key) if is_mapped else fitted.on(adata), adata)
        unseen = np.ones(len(new.bound), bool)
        columns = _compare(known, held_out, new, unseen, int(n_neighbors), int(random_state), own=False)
    actualise(adata)
    for name, values in columns.items():
        adata.obs[f"{prefix}_{name}"] = values
    params = {k: v for k, v in recorded(trust, given).items() if k not in UNSTORED}
    counts = {"n_reference": len(held_out), "n_held_out": int(held_out.sum())}
    adata.uns[f"{prefix}_trust"] = to_uns({"params": params, **counts})
    added = [f".obs['{prefix}_{name}']" for name in columns]
    _logging.closing_line("judged cells", added=added, time=start)


class _Seen(NamedTuple):
    """What the model sees in cells."""

    bound: np.ndarray
    log_total: np.ndarray
    batch: np.ndarray
    mean: np.ndarray
    var: np.ndarray


class _Judge(NamedTuple):
    """How cells are looked at."""

    n_samples: int
    random_state: int
    device: torch.device

    def see(self, fitted: Fitted, adata: AnnData) -> _Seen:
        cells = fitted.read(adata)
        options = {"n_samples": self.n_samples, "random_state": self.random_state}
        with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
            bound = held_out_bound(fitted.model, cells, device=self.device, **options).elbo
            latent = latent_moments(fitted.model, cells, device=self.device)
        return _Seen(bound, cells.log_total, cells.batch, latent.mean, latent.spread())


def _compare(
    known: _Seen,
    held_out: np.ndarray,
    judged: _Seen,
    unseen: np.ndarray,
    n_neighbors: int,
    random_state: int,
    *,
    own: bool,
) -> dict[str, np.ndarray]:
    """The four columns for `judged` cells, against the `known` ones."""
    bound = _bound_percentile(known, held_out, judged, unseen)
    usual = nearest(known.mean, n_neighbors=n_neighbors, random_state=random_state).distances.mean(1)
    distance = usual
    if not own:
        found = nearest(known.mean, judged.mean, n_neighbors=n_neighbors, random_state=random_state)
        distance = found.distances.mean(1)
    novelty = percentile(distance, usual)
    values = bound, novelty, _uncertainty(known, judged.var), np.sqrt(bound * (1 - novelty))
    return dict(zip(COLUMNS, values, strict=True))


def _uncertainty(known: _Seen, var: np.ndarray) -> np.ndarray:
    """Share of the variance in latent space that is unknown for each cell."""
    between, within = known.mean.var(0, dtype=np.float64), known.var.mean(0, dtype=np.float64)
    total = between + within  # zero in a dimension that is the same point for all cells
    return var @ np.divide(between, total, out=np.zeros_like(total), where=total > 0) / max(between.sum(), 1e-300)


def _bound_percentile(known: _Seen, held_out: np.ndarray, judged: _Seen, unseen: np.ndarray) -> np.ndarray:
    """Percentile of the standardised bound among known cells of the same kind: trained on, or not."""
    trend = BoundTrend.of(known.bound, known.log_total, known.batch)
    of_known = trend.standardise(known.bound, known.log_total, known.batch)
    of_judged = trend.standardise(judged.bound, judged.log_total, judged.batch)
    if held_out.sum() < LEAST_HELD_OUT:
        return percentile(of_judged, of_known)
    return np.where(unseen, percentile(of_judged, of_known[held_out]), percentile(of_judged, of_known[~held_out]))


def _held_out(adata: AnnData, key: str) -> np.ndarray:
    """Which cells the fit held out, by name; all others count as trained on."""
    names = held_out_names(find_entry(adata, key), key)
    return pd.Index(adata.obs_names.astype(str)).isin(names)
