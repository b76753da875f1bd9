"""The same seed gives the same bits, and the process is left as it was."""

import contextlib
import random
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import torch
from fingerprint import fingerprint

import scanpy_scvi as sv
from scanpy_scvi.training.fit import _Fit


@pytest.fixture(scope="module", autouse=True)
def _numba_threads_are_counted():
    """Asking numba for its threads starts them, and OpenMP then changes those of torch; get that over with."""
    before = torch.get_num_threads()
    numba.get_num_threads()
    torch.set_num_threads(before)


def results(adata):
    """Everything that a fit wrote, except its parameters."""
    entry = {key: adata.uns["scvi"][key] for key in ("state", "history", "convergence", "validation_cells")}
    return fingerprint(entry), fingerprint(adata.obsm["X_scvi"]), fingerprint(adata.layers["scvi_normalized"])


def global_state():
    """What a library must not change."""
    return {
        "torch": fingerprint(torch.get_rng_state().numpy()),
        "numpy": fingerprint(np.random.get_state()[1]) + np.random.get_state()[2:],  # noqa: NPY002
        "python": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads(), numba.get_num_threads()),
        "precision": (torch.get_float32_matmul_precision(), torch.backends.mkldnn.allow_tf32 or None),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark),
        "dtype": torch.get_default_dtype(),
        "gradients": (torch.is_grad_enabled(), torch.is_anomaly_enabled()),
        "errors": tuple(np.geterr().items()),
    }


OPTIONS = {
    "default": {},
    "zinb latent": {"likelihood": "zinb", "library": "latent", "dispersion": "gene-cell"},
    "poisson": {"likelihood": "poisson", "norm": "layer"},
    "scvi-tools": {"preset": "scvi-tools"},
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_same_seed_same_bits(kind, adata, quick_fit):
    again = adata.copy()
    quick_fit(adata, **OPTIONS[kind])
    torch.rand(7)  # where the global generators stand has no influence
    np.random.rand(7)  # noqa: NPY002
    quick_fit(again, **OPTIONS[kind])
    assert results(adata) == results(again)


def test_other_seed_other_bits(adata, quick_fit):
    other = adata.copy()
    quick_fit(adata)
    quick_fit(other, random_state=1)
    assert all(a != b for a, b in zip(results(adata), results(other), strict=True))
    held_out = [x.uns["scvi"]["validation_cells"].tolist() for x in (adata, other)]
    assert held_out[0] != held_out[1]


def test_a_large_seed(adata, quick_fit):
    quick_fit(adata, random_state=2**32 + 1)
    assert adata.uns["scvi"]["seed"] == 2**32 + 1


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["finished", "refused", "interrupted", "kept", "diverged"])
def test_the_process_is_left_as_it_was(how, adata, quick_fit, monkeypatch):
    options = {"normalized": True}
    raises = contextlib.nullcontext()
    if how == "refused":
        options["n_latent"], raises = 10**6, pytest.raises(ValueError, match="n_latent")
    if how == "interrupted":
        monkeypatch.setattr(_Fit, "_step", interrupt)
        raises = pytest.raises(KeyboardInterrupt)
    if how == "kept":
        monkeypatch.setattr("scanpy_scvi._progress.ProgressLine.update", interrupt)
        options["on_interrupt"] = "keep"
    if how == "diverged":
        monkeypatch.setattr("scanpy_scvi.modules.likelihoods.NegativeBinomial.nll", lambda *a: a[2] * torch.nan)
        raises = pytest.raises(FloatingPointError)
    before = global_state()
    with raises:
        quick_fit(adata, **options)
    assert global_state() == before


@pytest.mark.parametrize("n_samples", [None, 2])
def test_normalized_expression_leaves_the_process_as_it_was(n_samples, fitted):
    before = global_state()
    sv.tl.normalized_expression(fitted, n_samples=n_samples, inplace=False)
    assert global_state() == before


def test_a_fit_works_under_the_precision_that_others_set(adata, quick_fit):
    torch.set_default_dtype(torch.float64)
    try:
        quick_fit(adata)
        again = sv.tl.normalized_expression(adata, inplace=False)
    finally:
        torch.set_default_dtype(torch.float32)
    assert adata.obsm["X_scvi"].dtype == np.float32
    assert {array.dtype.str for array in adata.uns["scvi"]["state"].values()} <= {"<f4", "<i8"}
    assert np.array_equal(again, adata.layers["scvi_normalized"])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_fit_works_where_the_caller_wants_no_gradients(mode, adata, quick_fit):
    other = adata.copy()
    quick_fit(adata)
    with mode():
        quick_fit(other)
    assert results(adata) == results(other)


def test_fits_in_several_threads_take_turns(adata, quick_fit):
    copies = [adata.copy() for _ in range(3)]
    before = global_state()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(quick_fit, copies))
    assert global_state() == before
    quick_fit(adata)
    assert all(results(c) == results(adata) for c in copies)
