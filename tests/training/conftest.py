"""A small problem for the training loop: data as arrays, fresh models, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from scanpy_scvi.modules import ModelSpec, Part
from scanpy_scvi.store import ColumnKeys, read
from scanpy_scvi.training import TrainingConfig, seeded
from scanpy_scvi.training.threads import limited_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import anndata as ad

    from scanpy_scvi.modules import VAE
    from scanpy_scvi.store import Data

NETWORK = {"n_hidden": 16, "n_layers": 1, "norm": "batch", "n_latent": 3}
CONFIG = {"settle_dispersion": False, "max_epochs": 4, "batch_size": 32, "learning_rate": 1e-2, "early_stopping": False}


@pytest.fixture(autouse=True)
def _one_thread_and_one_seed() -> Iterator[None]:
    """The loop leaves both to its caller; small products are fastest on one, and no test depends on those before it."""
    with limited_threads(1), seeded(0):
        yield


@pytest.fixture(scope="session")
def data(simulated: ad.AnnData) -> Data:
    """120 cells x 100 genes as a model reads them."""
    return read(simulated, ColumnKeys(batch_key="batch"), layer=None, mask_var=None)


@pytest.fixture
def make_model(data: Data) -> Callable[..., VAE]:
    """Make a small model with weights from a seed."""

    def make(seed: int = 0, likelihood: str = "nb") -> VAE:
        spec = ModelSpec(
            dims=data.dims,
            encoder=Part("mlp", NETWORK | {"dropout_rate": 0.1}),
            library=Part("observed"),
            decoder=Part("mlp", NETWORK),
            likelihood=Part(likelihood),
            prior=Part("normal"),
        )
        with seeded(seed):
            return spec.build()

    return make


@pytest.fixture
def config() -> Callable[..., TrainingConfig]:
    """Settings of a short fit, changed by name."""

    def make(**changes: Any) -> TrainingConfig:
        return TrainingConfig(**(CONFIG | changes))

    return make
