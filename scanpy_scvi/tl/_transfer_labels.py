"""Labels of a reference, for cells in its latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import __version__, _logging
from ..metrics.neighbourhood import Kin, Space
from ..metrics.neighbours import CHUNK
from ..store.identity import space_id
from ..store.keys import Keys
from ..store.placing import was_placed
from ..store.reference import as_reference
from ..store.transfer import (
    UNKNOWN,
    Label,
    Told,
    check_free_for_transfer,
    find_embedding,
    read_label,
    read_latents,
    write_transfer,
    written_before,
)
from ._assemble import check_choice, check_number
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData

    from ..metrics.neighbourhood import Usual


RATES = (0.1, 0.05, 0.02, 0.01, 0.001)
"""Rates of false Unknown for which thresholds are stored."""
FAR = 0.05
"""Rate whose threshold the median cell of a query should not exceed."""
UNSTORED = {"query", "reference", "label_keys", "key"}


def transfer_labels(
    query: AnnData,
    reference: AnnData | str | PathLike[str],
    label_keys: str | Sequence[str],
    *,
    key: str = "scvi",
    n_neighbors: int = 20,
    unknown: float | None = None,
    probabilities: bool = False,
    embedding: str | None = "umap",
    random_state: int = 0,
) -> None:
    r"""Give new cells the labels of their neighbours in a reference, and say how far from it they lie.

    Neighbours are looked for in `obsm["X_scvi"]` of both, by the Mahalanobis distance
    :math:`d^2(m, m') = (m - m')^\top W^{-1} (m - m')` with the covariance W of the differences between neighbouring
    cells of the reference: a direction counts by how little cells of one kind differ in it. No model and no counts are
    needed, so a slim reference does.

    - **Labels.** Of the k nearest cells, the i-th speaks with weight :math:`w_i \propto \exp(-d_i^2 / 2 h^2)`,
      :math:`h = d_k / 3`. The probability of a category c is :math:`\propto N_c^{-1/4} \sum_{i: c_i = c} w_i`, with
      :math:`N_c` cells of it in the reference: new cells need not come in the reference's shares. A number is the
      weighted mean.
    - **Distance.** The mean of :math:`d_1, \ldots, d_k`, in units of the median of what cells of the reference have to
      each other: 1 is usual.
    - **Unknown.** Beyond a threshold a cell belongs to no kind of the reference. It is the `1 - unknown` quantile of
      the distances of the reference's own cells, each left out in turn. The rate holds as far as the query is mapped
      well: where a batch effect is left, more cells lie beyond.

    Parameters
    ----------
    query
        Annotated data with `obsm["X_scvi"]` in the latent space of the reference: mapped to it by
        :func:`scanpy_scvi.tl.map_query`, or part of the same fit.
    reference
        Annotated data with labels, or the path of such a file. It is not changed.
    label_keys
        Column or columns of `reference.obs`. Numbers are averaged; all else is categories. Cells without a label are
        left out for that label.
    key
        Name of the fit.
    n_neighbors
        Cells of the reference that are asked, k.
    unknown
        Share of cells of known kinds that may be called `"Unknown"` (for numbers: NaN), say 0.05; by default none is.
        More of them find more of the new kinds.
    probabilities
        Whether to write the probability of every category.
    embedding
        Embedding of the reference whose weighted mean is written to the query, if the reference has it and the query
        has none of its own; None for none.
    random_state
        Seed of the neighbour search, which is exact up to 20,000 reference cells and by pynndescent beyond.

    Returns
    -------
    `None`. Written to the query, for a label `cell_type`; its own `obs["cell_type"]` is not touched:

    `obs["cell_type_pred"]`
        Most probable category, with the reference's order and, in `uns["cell_type_pred_colors"]`, its colours;
        `"Unknown"` where there is a threshold. For numbers their mean, float64.
    `obs["cell_type_conf"]`
        Probability of that category, also where it was replaced by `"Unknown"`, float32. For numbers the share of the
        reference's variance that the neighbours do not have, :math:`1 - s^2 / S^2`, at least 0.
    `obsm["cell_type_prob"]`
        With `probabilities=True`, cells x categories in the order of `uns["scvi_transfer"]["labels"]`.
    `obs["scvi_ref_dist"]`
        Distance to the reference, float32.
    `obsm["X_umap"]`
        The reference's UMAP, averaged as numbers are; under the name that it has there. Not where a network has placed
        the cells (:func:`scanpy_scvi.tl.learn_embedding`).
    `uns["scvi_transfer"]`
        `params`, `reference_id` (fingerprint of the weights), `n_reference`, `threshold` where `unknown` was given,
        `thresholds` for other rates, `labels` with their classes, what was `written`, `versions`.

    Raises
    ------
    KeyError
        Where there is no such label or embedding.
    ValueError
        Where the two are not of one latent space, something would be overwritten that no earlier call wrote, or an
        option cannot be used. The query stays as it was.

    Notes
    -----
    Probabilities say which of the reference's kinds a cell is, if it is one of them. A kind that the reference lacks
    may get a high one: look at the distance.

    References
    ----------
    Lotfollahi et al. 2022, Nat Biotechnol 40:121, doi:10.1038/s41587-021-01001-7, for labels by weighted neighbours in
    the latent space of scVI. Metric, kernel and threshold are this package's own; :doc:`/benchmarks` shows what they
    bring.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=400, n_batches=3, density=0.3)
    >>> is_new = adata.obs["batch"] == "batch_2"
    >>> reference, query = adata[~is_new].copy(), adata[is_new].copy()
    >>> sv.tl.scvi(reference, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.map_query(query, reference, max_epochs=2, progress=False)
    >>> sv.tl.transfer_labels(query, reference, "label", unknown=0.05)
    >>> query.obs["label_pred"].cat.categories.to_list()
    ['label_0', 'label_1', 'label_2', 'Unknown']
    """
    given = resolve_options(transfer_labels, locals())
    start = _logging.info("transferring labels")
    check_number(n_neighbors, 1, np.inf, "n_neighbors", whole=True)
    check_number(random_state, 0, 2**32 - 1, "random_state", whole=True)
    check_choice(probabilities, (True, False), "probabilities")
    if unknown is not None:
        check_number(unknown, 0, 1, "unknown")
    keys, source = Keys(key), as_reference(reference)
    if source is query:
        msg = "`query` and `reference` are the same object, but a cell should not be its own neighbour. Split it."
        raise ValueError(msg)
    z, z_reference = read_latents(query, source, key)
    labels = [read_label(source, name) for name in _names(label_keys)]
    check_free_for_transfer(query, keys, labels)
    place = _free_embedding(query, source, keys, embedding)
    space = Space(z_reference, n_neighbors=min(int(n_neighbors), source.n_obs - 1), random_state=int(random_state))
    usual = space.usual()
    threshold = np.inf if unknown is None else usual.threshold(unknown)
    asked = _Asked(space, usual.scale, threshold, None if place is None else place[1], probabilities)
    told = _ask(asked, labels, z)
    _warn(told.distance, usual)
    params = {name: v for name, v in recorded(transfer_labels, given).items() if name not in UNSTORED}
    entry = {
        "params": params,
        "reference_id": space_id(source, key),
        "n_reference": source.n_obs,
        "threshold": None if unknown is None else threshold,
        "thresholds": {"rate": RATES, "distance": [usual.threshold(rate) for rate in RATES]},
        "versions": {"scanpy-scvi": __version__},
    }
    embedded = None if place is None else (place[0], told.embedded)
    added = write_transfer(query, keys, told.labels, told.distance, embedded, entry)
    far = "" if unknown is None else f", {np.mean(told.distance > threshold):.1%} of the cells Unknown"
    _logging.closing_line(f"transferred labels from {source.n_obs} cells{far}", added=added, time=start)


class _Answer(NamedTuple):
    """What was found for the cells of a query."""

    labels: list[Told]
    distance: np.ndarray
    embedded: np.ndarray


class _Asked(NamedTuple):
    """What a reference is asked."""

    space: Space
    scale: float
    """Unit of distances."""
    threshold: float
    """Distance of what is Unknown."""
    coordinates: np.ndarray | None
    """An embedding of the reference."""
    probabilities: bool


def _ask(asked: _Asked, labels: list[Label], z: np.ndarray) -> _Answer:
    """Ask about cells at `z`, some at a time."""
    n, coordinates = len(z), asked.coordinates
    distance = np.empty(n)
    embedded = np.empty((n, 0 if coordinates is None else coordinates.shape[1]), np.float32)
    tellers = [_Teller(label, asked, n) for label in labels]
    for rows in (slice(start, start + CHUNK) for start in range(0, n, CHUNK)):
        cells = asked.space.place(z[rows])
        found = asked.space.index.of(cells)
        kin = Kin.of(found)
        distance[rows] = found.distances.mean(1, dtype=np.float64) / asked.scale
        if coordinates is not None:
            embedded[rows] = kin.mean(coordinates)
        for teller in tellers:
            teller.tell(rows, kin if teller.complete else Kin.of(teller.index.of(cells)))
    far = distance > asked.threshold
    unknown = bool(np.isfinite(asked.threshold))
    return _Answer([teller.told(far, unknown=unknown) for teller in tellers], distance, embedded)


class _Teller:
    """Collects what neighbours say of one label."""

    def __init__(self, label: Label, asked: _Asked, n: int) -> None:
        self.label, self.complete = label, bool(label.known.all())
        self.index = asked.space.index_of(label.known)
        self._known = label.values[label.known]
        self._overall = self._known.var(ddof=1) if len(self._known) > 1 else 0.0
        self._values, self._confidence = np.empty(n, self._known.dtype), np.empty(n, np.float32)
        self._shares = np.empty((n, len(label.classes)), np.float32) if asked.probabilities and label.classes else None

    def tell(self, rows: slice, kin: Kin) -> None:
        """Take down what the neighbours of some cells say."""
        if not self.label.classes:
            self._values[rows] = kin.mean(self._known)
            left = kin.variance(self._known) / self._overall if self._overall else 0.0
            self._confidence[rows] = np.maximum(1 - left, 0)
            return
        shares = kin.probabilities(self._known, len(self.label.classes))
        self._values[rows], self._confidence[rows] = shares.argmax(1), np.minimum(shares.max(1), 1)
        if self._shares is not None:
            self._shares[rows] = shares

    def told(self, far: np.ndarray, *, unknown: bool) -> Told:
        """All of it, with cells that are `far` away unknown."""
        names = self.label.names(unknown=unknown)
        if far.any():
            self._values[far] = names.index(UNKNOWN) if names else np.nan
        return Told(self.label, self._values, names, self._confidence, self._shares)


def _warn(distance: np.ndarray, usual: Usual) -> None:
    """Say that labels mean little where most cells are far away."""
    if len(distance) and np.median(distance) > usual.threshold(FAR):
        far = np.mean(distance > usual.threshold(FAR))
        _logging.warning(
            f"{far:.0%} of the query's cells lie farther from the reference than {1 - FAR:.0%} of its own do from each "
            "other: they are of other kinds, or a batch effect is left. Compare `map_query(…, update_weights=False)`."
        )


def _names(label_keys: str | Sequence[str]) -> list[str]:
    names = [label_keys] if isinstance(label_keys, str) else list(label_keys)
    if not names or len(set(names)) < len(names):
        msg = f"`label_keys` is {label_keys!r}, but one or more different columns of `reference.obs` were expected."
        raise ValueError(msg)
    return names


def _free_embedding(
    query: AnnData, reference: AnnData, keys: Keys, embedding: str | None
) -> tuple[str, np.ndarray] | None:
    """Find the reference's embedding, unless the query has one of that name which is not ours."""
    found = None if embedding is None else find_embedding(reference, embedding)
    if found is not None and was_placed(query, found[0]):
        return None  # by a network that was fitted to it
    if found is None or found[0] not in query.obsm or f"obsm:{found[0]}" in written_before(query, keys):
        return found
    _logging.warning(f"The query has its own `.obsm[{found[0]!r}]`, which was kept; delete it for the reference's.")
    return None
