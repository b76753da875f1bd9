"""Small data and small models for the tests of modules and posterior."""

import numpy as np
import torch
from scipy import sparse

from scanpy_scvi.modules import VAE, Cells, Counts, Dimensions, ModelSpec, Part
from scanpy_scvi.numerics.sparse import CSRRows
from scanpy_scvi.training import CellTable, seeded

DIMS = Dimensions(n_genes=23, n_batches=3, n_labels=2, n_categories=(4, 1), n_continuous=2)
PLAIN = Dimensions(n_genes=23)
NETWORK = {"n_hidden": 8, "n_layers": 2, "norm": "batch", "n_latent": 3}
LATENT = {
    "prior_mean": [4.0, 4.2, 3.9],
    "prior_var": [0.1, 0.2, 0.05],
    "n_hidden": 8,
    "norm": "batch",
    "dropout_rate": 0.1,
}


def table(n_cells: int = 37, dims: Dimensions = DIMS, *, seed: int = 0, depth: float = 60.0) -> CellTable:
    """Random cells; every batch, label and category occurs."""
    rng = np.random.default_rng(seed)
    mean = depth * rng.dirichlet(np.full(dims.n_genes, 0.5))
    x = rng.poisson(mean * rng.gamma(1.5, 1 / 1.5, (n_cells, dims.n_genes)))
    x[x.sum(1) == 0, 0] = 1
    return table_of(x, dims, rng)


def table_of(x: np.ndarray, dims: Dimensions = PLAIN, rng: np.random.Generator | None = None) -> CellTable:
    """Cells with the given counts and random covariates."""
    rng = rng or np.random.default_rng(0)
    n = len(x)
    csr = sparse.csr_array(np.asarray(x, np.float32))
    log_total = np.log(np.asarray(x, float).sum(1)).astype(np.float32)
    return CellTable(
        counts=CSRRows(csr.indptr.astype(np.int64), csr.indices.astype(np.int32), csr.data),
        n_genes=x.shape[1],
        log_total=log_total,
        log_size_factor=log_total + rng.normal(0, 0.1, n).astype(np.float32),
        batch=rng.permutation(n) % dims.n_batches,
        labels=rng.permutation(n) % dims.n_labels,
        categorical=np.array([rng.permutation(n) % k for k in dims.n_categories], dtype=int).reshape(-1, n).T,
        continuous=rng.normal(size=(n, dims.n_continuous)).astype(np.float32),
    )


def all_cells(data: CellTable) -> Cells:
    """Every cell as one minibatch."""
    return data.take(np.arange(data.n_cells))


def counts_of(x: np.ndarray, *, store_zeros: bool = False) -> Counts:
    """A dense matrix as the counts of a minibatch; cells may be empty."""
    x = np.asarray(x, np.float32)
    rows, columns = np.nonzero(np.ones_like(x) if store_zeros else x)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(x)))])
    return Counts(*map(torch.from_numpy, (indptr, columns.astype(np.int32), x[rows, columns])), n_genes=x.shape[1])


def spec(
    dims: Dimensions = DIMS,
    *,
    encoder: Part | None = None,
    library: Part | None = None,
    decoder: Part | None = None,
    likelihood: Part | None = None,
    prior: Part | None = None,
    penalties: tuple[Part, ...] = (),
) -> ModelSpec:
    """Specify a small model; each part may be replaced."""
    return ModelSpec(
        dims=dims,
        encoder=encoder or Part("mlp", {**NETWORK, "dropout_rate": 0.1}),
        library=library or Part("observed"),
        decoder=decoder or Part("mlp", NETWORK),
        likelihood=likelihood or Part("nb"),
        prior=prior or Part("normal"),
        penalties=penalties,
    )


def build(model_spec: ModelSpec, seed: int = 0) -> VAE:
    """Make the model in evaluation mode, with reproducible weights."""
    with seeded(seed):
        return model_spec.build().eval()
