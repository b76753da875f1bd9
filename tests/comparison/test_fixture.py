# ruff: noqa: E402
"""The committed fixture still says what scvi-tools says of the same weights."""

import numpy as np
import pytest
import torch

scvi = pytest.importorskip("scvi")

from _fixture import read
from _peer import ask_peer, nll64


def test_fixture_is_theirs():
    for case in read():
        v = case.variant
        names = ("library_log_means", "library_log_vars")
        module = scvi.module.VAE(
            n_input=case.dims.n_genes,
            n_batch=case.dims.n_batches,
            n_hidden=v.n_hidden,
            n_latent=v.n_latent,
            n_layers=v.n_layers,
            dispersion=v.dispersion,
            gene_likelihood=v.likelihood,
            use_observed_lib_size=v.library == "observed",
            **{name: case.state[name].numpy() for name in names if v.library == "latent"},
        ).eval()
        _, unexpected = module.load_state_dict(case.state, strict=False)  # heads without use were left out
        assert not unexpected
        x = torch.from_numpy(case.counts.astype(np.float32))
        batch = torch.from_numpy(case.batch)[:, None]
        answers = ask_peer(module, {"X": x, "batch": batch, "labels": torch.zeros_like(batch)}, v.likelihood)
        for name, a, b in zip(answers._fields, answers._replace(nll=nll64(answers, x)), case.answers, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)
