"""Systems of the mapping table: a label for each query cell, how sure it is, and scores, high for what is new."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scanpy as sc
from mapping_data import BATCH, LABEL, Split, logged
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad


class Answer(NamedTuple):
    """What a system says of the query's cells."""

    labels: np.ndarray
    confidence: np.ndarray | None
    novelty: dict[str, np.ndarray]
    seconds: dict[str, float]
    """CPU seconds of fitting the reference and of mapping with transfer."""
    unknown: np.ndarray | None = None
    """Cells called Unknown at a stated rate of 5 %."""


def _ours(split: Split, seed: int, *, update_weights: bool) -> Answer:
    import scanpy_scvi as sv

    reference, query = _fitted(split, seed), split.query.copy()
    start = time.process_time()
    options = {"update_weights": update_weights, "random_state": seed, "progress": False}
    sv.tl.map_query(query, reference, **options)
    sv.tl.transfer_labels(query, reference, LABEL, embedding=None, random_state=seed)
    seconds = {"fit": reference.uns["fit_seconds"], "map": time.process_time() - start}
    thresholds = query.uns["scvi_transfer"]["thresholds"]
    threshold = thresholds["distance"][np.flatnonzero(np.isclose(thresholds["rate"], 0.05))[0]]
    distance = query.obs["scvi_ref_dist"].to_numpy()
    return Answer(
        query.obs[f"{LABEL}_pred"].astype(str).to_numpy(),
        query.obs[f"{LABEL}_conf"].to_numpy(),
        {"distance": distance, "1 - p": 1 - query.obs[f"{LABEL}_conf"].to_numpy()},
        seconds,
        distance > threshold,
    )


def _fitted(split: Split, seed: int) -> ad.AnnData:
    """Return the reference after a default fit, which is made once for both ways of mapping."""
    import scanpy_scvi as sv

    reference = split.reference
    if "scvi" not in reference.uns or reference.uns["scvi"]["seed"] != seed:
        start = time.process_time()
        sv.tl.scvi(reference, BATCH, normalized=False, progress=False, random_state=seed)
        reference.uns["fit_seconds"] = time.process_time() - start
    return reference


def ours(split: Split, seed: int) -> Answer:
    """Map with the new batch's columns trained."""
    return _ours(split, seed, update_weights=True)


def ours_forward(split: Split, seed: int) -> Answer:
    """Map by the encoder alone."""
    return _ours(split, seed, update_weights=False)


def _distance(reference: np.ndarray, query: np.ndarray, n_neighbors: int) -> np.ndarray:
    return NearestNeighbors(n_neighbors=n_neighbors).fit(reference).kneighbors(query)[0].mean(1)


def ingest(split: Split, seed: int) -> Answer:
    """`sc.tl.ingest` on 50 principal components, its defaults."""
    reference, query = logged(split.reference), logged(split.query)
    start = time.process_time()
    sc.pp.pca(reference, random_state=seed, mask_var=None)
    sc.pp.neighbors(reference, random_state=seed)
    reference.obs[LABEL] = reference.obs[LABEL].astype("category")
    fitted = time.process_time()
    sc.tl.ingest(query, reference, obs=LABEL, embedding_method="pca")
    seconds = {"fit": fitted - start, "map": time.process_time() - fitted}
    novelty = _distance(reference.obsm["X_pca"], query.obsm["X_pca"], 15)
    return Answer(query.obs[LABEL].astype(str).to_numpy(), None, {"distance": novelty}, seconds)


def pca_knn(split: Split, seed: int) -> Answer:
    """Vote of 15 neighbours on 30 principal components of the reference."""
    counts = (logged(a).X.toarray() for a in (split.reference, split.query))
    start = time.process_time()
    x, y = counts
    pca = PCA(30, random_state=seed).fit(x)
    x, y = pca.transform(x), pca.transform(y)
    index = NearestNeighbors(n_neighbors=15).fit(x)
    fitted = time.process_time()
    distances, found = index.kneighbors(y)
    names, codes = np.unique(split.reference.obs[LABEL].to_numpy().astype(str), return_inverse=True)
    shares = np.stack([(codes[found] == c).mean(1) for c in range(len(names))], axis=1)
    seconds = {"fit": fitted - start, "map": time.process_time() - fitted}
    novelty = {"distance": distances.mean(1), "1 - p": 1 - shares.max(1)}
    return Answer(names[shares.argmax(1)], shares.max(1), novelty, seconds)


def scarches(split: Split, seed: int) -> Answer:
    """Surgery by scvi-tools with the options that its guide gives, then the weighted neighbours of scArches.

    Lotfollahi et al. 2022; n_neighbors 50, weights exp(-d (s / 2)^2) with s the deviation of the 50 distances.
    """
    import scvi

    reference, query = split.reference.copy(), split.query.copy()
    scvi.settings.seed = seed
    scvi.settings.verbosity = 40
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    start = time.process_time()
    scvi.model.SCVI.setup_anndata(reference, batch_key=BATCH)
    norms = {"use_layer_norm": "both", "use_batch_norm": "none"}
    model = scvi.model.SCVI(reference, n_layers=2, dropout_rate=0.2, encode_covariates=True, **norms)
    model.train(**quiet)
    z_reference = model.get_latent_representation()
    fitted = time.process_time()
    scvi.model.SCVI.prepare_query_anndata(query, model)
    mapped = scvi.model.SCVI.load_query_data(query, model, accelerator="cpu")
    mapped.train(max_epochs=200, plan_kwargs={"weight_decay": 0.0}, **quiet)
    z = mapped.get_latent_representation()
    distances, found = NearestNeighbors(n_neighbors=50).fit(z_reference).kneighbors(z)
    weights = np.exp(-distances * (distances.std(1, keepdims=True) / 2) ** 2)
    names, codes = np.unique(reference.obs[LABEL].to_numpy().astype(str), return_inverse=True)
    shares = np.stack([(weights * (codes[found] == c)).sum(1) for c in range(len(names))], axis=1)
    shares /= weights.sum(1, keepdims=True)
    seconds = {"fit": fitted - start, "map": time.process_time() - fitted}
    novelty = {"1 - p": 1 - shares.max(1), "distance": distances.mean(1)}
    return Answer(names[shares.argmax(1)], shares.max(1), novelty, seconds)


SYSTEMS: dict[str, Callable[[Split, int], Answer]] = {
    "ours": ours,
    "ours, forward only": ours_forward,
    "sc.tl.ingest": ingest,
    "kNN on 30 PCs": pca_knn,
    "scArches": scarches,
}
