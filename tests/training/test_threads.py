"""Fits on several threads."""

import numpy as np
import pytest
import torch

import scanpy_scvi as sv
from scanpy_scvi.numerics import team
from scanpy_scvi.training.threads import team_of_torch_threads


@pytest.fixture
def eager(monkeypatch):
    """Share even the least work."""
    monkeypatch.setattr(team, "WORTHWHILE", 1e-9)


def fit(adata, n_threads, **options):
    before, adata = torch.get_num_threads(), adata.copy()
    torch.set_num_threads(n_threads)
    try:
        sv.tl.scvi(adata, "batch", max_epochs=3, n_hidden=16, n_latent=3, batch_size=32, progress=False, **options)
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    return adata


@pytest.mark.parametrize(
    "options", [{}, {"likelihood": "zinb"}, {"dispersion": "gene-cell"}, {"likelihood": "poisson"}]
)
def test_threads_change_the_result_by_rounding_alone_and_repeat_to_the_bit(options, simulated, eager):
    alone, together, again = (fit(simulated, n, **options) for n in (1, 2, 2))
    assert np.array_equal(together.obsm["X_scvi"], again.obsm["X_scvi"])
    elbo = [a.uns["scvi"]["history"]["validation_elbo"] for a in (alone, together)]
    np.testing.assert_allclose(*elbo, rtol=2e-3)


def test_torch_has_one_thread_beside_the_team_and_its_own_afterwards():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with team_of_torch_threads():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
