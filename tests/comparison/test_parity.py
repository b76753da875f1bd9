"""Weights copied from scvi-tools, z fixed: posterior, proportions, dispersion, and every term of the bound agree."""

import numpy as np
import pytest
import torch

pytest.importorskip("scvi")

from _peer import ask_peer, away_from_kinks, counts, nll64
from _weights import ISSUE_VARIANTS, Answers, Variant, ask

from scanpy_scvi.store import ColumnKeys

RTOL = 1e-5
EXTRA = [
    Variant("poisson"),
    Variant("nb", dispersion="gene-cell"),
    Variant("zinb", 2, dispersion="gene-cell"),
    Variant("nb", norm="layer"),
    Variant("nb", norm="none"),
    Variant("nb", 3, inject_covariates=False),
]
COVARIATES = ColumnKeys("batch", "cell_type", ("parity", "protocol"), ("depth",))
WITH_COVARIATES = [
    Variant("nb", 2, dispersion="gene-label"),
    Variant("zinb", 2, dispersion="gene-label", encode_covariates=True),
    Variant("nb", 2, encode_covariates=True, inject_covariates=False),
]


def assert_parity(ours: Answers, theirs: Answers) -> None:
    """1e-5 relative; of quantities that change sign, relative to their spread as well."""
    for name, a, b in zip(Answers._fields, ours, theirs, strict=True):
        if b is None:
            assert a is None, name
            continue
        a, b = a.expand_as(b).numpy(), b.numpy()
        scale = b.std() if name in ("q_mean", "zero_logits") else 0
        if name == "kl_library":
            # A difference of terms of order one: float32 leaves 1e-7 nats, which is much of a KL of 0.01 nats.
            scale = 0.1
        np.testing.assert_allclose(a, b, rtol=RTOL, atol=RTOL * scale, err_msg=name)


@pytest.mark.parametrize("variant", [*ISSUE_VARIANTS, *EXTRA], ids=str)
def test_parity_at_the_posterior_mean(pair, variant):
    p = pair(variant)
    theirs = ask_peer(p.peer.module, p.tensors, variant.likelihood)
    with torch.no_grad():
        ours = ask(p.ours, p.cells)
    assert_parity(ours, theirs)
    assert (theirs.kl_library.max() > 0.1) == (variant.library == "latent")
    assert theirs.kl.min() > 1e-3  # an epoch was enough for a posterior that says something
    # Their formula in float64 on their own parameters, with and without the 1e-8 that it adds inside logarithms.
    x = counts(p.peer.adata)
    exact, padded = nll64(theirs, x, eps=1e-300), nll64(theirs, x)
    np.testing.assert_allclose(ours.nll, padded, rtol=RTOL)
    np.testing.assert_allclose(ours.nll, exact, rtol=RTOL / 5)
    np.testing.assert_allclose(padded, exact, rtol=1e-6)


@pytest.mark.parametrize("variant", WITH_COVARIATES, ids=str)
def test_parity_with_covariates_and_labels(pair, variant):
    p = pair(variant, COVARIATES)
    with torch.no_grad():
        assert_parity(ask(p.ours, p.cells), ask_peer(p.peer.module, p.tensors, variant.likelihood))


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_large_theta_where_their_float32_is_off(pair, likelihood):
    """At theta = 1e6 lgamma(x + theta) - lgamma(theta) cancels in float32: their formula in float64 judges there."""
    p = pair(Variant(likelihood))
    kept = p.peer.module.px_r.data.clone(), p.ours.likelihood.dispersion.log_theta.data.clone()
    try:
        for px_r in (p.peer.module.px_r, p.ours.likelihood.dispersion.log_theta):
            px_r.data.fill_(float(np.log(1e6)))
        theirs = ask_peer(p.peer.module, p.tensors, likelihood)
        with torch.no_grad():
            ours = ask(p.ours, p.cells)
    finally:
        p.peer.module.px_r.data, p.ours.likelihood.dispersion.log_theta.data = kept
    judge = nll64(theirs, counts(p.peer.adata), eps=1e-300)
    np.testing.assert_allclose(ours.nll, judge, rtol=RTOL)
    assert ((theirs.nll - judge).abs() / judge).max() > 100 * RTOL
    np.testing.assert_allclose(ours.theta.expand_as(ours.rho), theirs.theta, rtol=RTOL)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    "variant",
    [
        Variant("nb", 2, "latent", "gene-batch", dropout_rate=0.0),
        Variant("zinb", 2, "latent", "gene", dropout_rate=0.0),
        Variant("zinb", 1, "observed", "gene-cell", dropout_rate=0.0),
        Variant("poisson", dropout_rate=0.0),
    ],
    ids=str,
)
def test_gradients_of_the_loss(pair, posterior_mean, variant, mode):
    """One loss, one backward pass: all weights move the same way, batch statistics included."""
    from _weights import options, our_names

    p = pair(variant)
    rows = away_from_kinks(p.peer.module, p.tensors)
    assert len(rows) > 0.9 * p.data.table.n_cells
    tensors, cells = {name: values[rows] for name, values in p.tensors.items()}, p.data.table.take(rows)
    states = p.peer.module.state_dict(), p.ours.state_dict()
    buffers = [{k: v.clone() for k, v in state.items()} for state in states]
    for module in (p.peer.module, p.ours):
        module.train(mode == "train").zero_grad(set_to_none=True)
    try:
        _, _, theirs = p.peer.module(tensors, loss_kwargs={"kl_weight": 0.3})
        theirs.loss.backward()
        ours = p.ours(cells).loss(0.3).mean()
        ours.backward()
    finally:
        for module, state in zip((p.peer.module, p.ours), buffers, strict=True):
            module.eval().load_state_dict(state)
    np.testing.assert_allclose(ours.item(), theirs.loss.item(), rtol=RTOL)
    grads = {k: v.grad if v.grad is not None else torch.zeros_like(v) for k, v in p.peer.module.named_parameters()}
    expected = our_names(grads, options(variant), p.data.dims)
    got = {k: v.grad for k, v in p.ours.named_parameters()}
    assert set(expected) == set(got)
    largest = max(g.abs().max() for g in got.values())
    # Batch statistics cancel large terms: in float32 either side may be 1.2e-4 away from float64.
    tolerance = 3e-4 if mode == "train" else 1e-5
    for name, gradient in got.items():
        if mode == "train" and name.endswith("linear.bias"):  # batch normalisation takes it away: rounding alone
            assert max(gradient.abs().max(), expected[name].abs().max()) < 1e-5 * largest
        else:
            assert (gradient - expected[name]).abs().max() <= tolerance * expected[name].abs().max(), name
