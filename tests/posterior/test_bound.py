"""The two bounds against models whose marginal likelihood is known or can be integrated."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, LATENT, NETWORK, PLAIN, all_cells, build, spec, table
from torch.distributions import Normal

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.encoders.moments import VAR_FLOOR
from scanpy_scvi.numerics.sparse import take_rows
from scanpy_scvi.posterior import bound, held_out_bound
from scanpy_scvi.training import seeded

CPU = torch.device("cpu")


def run(model, data, **options):
    return held_out_bound(model, data, device=CPU, **options)


def estimate(model, data, *, n_samples, copies):
    """ELBO and log-likelihood of each cell from n_samples x copies draws; copies of a cell cost less than draws."""
    rows = np.tile(np.arange(data.n_cells), copies)
    fields = {f.name: getattr(data, f.name) for f in dataclasses.fields(data) if f.name not in ("counts", "n_genes")}
    copied = dataclasses.replace(
        data, counts=take_rows(*data.counts, rows), **{name: values[rows] for name, values in fields.items()}
    )
    elbo, weighted = (a.reshape(copies, -1) for a in run(model, copied, n_samples=n_samples))
    return elbo.mean(0), np.logaddexp.reduce(weighted) - math.log(copies)


@torch.no_grad()
def fix_posterior(model, mean, var):
    """Let q(z | x) be the same normal for every cell."""
    for part, value in ((model.encoder.mean, mean), (model.encoder.log_var, math.log(var - VAR_FLOOR))):
        part.weight.zero_()
        part.bias.fill_(value)


@torch.no_grad()
def ignore_z(model):
    """Let the decoder say the same of every z."""
    for block in model.decoder.mlp.blocks:
        block.linear.weight.zero_()
        if block.linear.covariate_weight is not None:
            block.linear.covariate_weight.zero_()


@torch.no_grad()
def nll_at(model, data, z, log_library=None):
    """-log p(x | z, l) of all cells at one z."""
    cells = all_cells(data)
    output = model.decode(torch.full((cells.n_cells, model.encoder.mean.bias.numel()), float(z)), cells)
    return model.likelihood.nll(output, model.library.mean(cells) if log_library is None else log_library, cells)


def test_both_are_exact_where_the_decoder_ignores_z_and_q_is_the_prior():
    data, model = table(), build(spec())
    ignore_z(model)
    fix_posterior(model, 0.0, 1.0)
    result = run(model, data, n_samples=7)
    exact = -nll_at(model, data, 0.0).numpy()
    np.testing.assert_allclose(result.elbo, exact, rtol=1e-6)
    np.testing.assert_allclose(result.log_likelihood, exact, rtol=1e-6)


def test_where_the_decoder_ignores_z_the_gap_of_the_elbo_is_the_kl():
    data, model = table(10), build(spec())
    ignore_z(model)
    fix_posterior(model, 0.4, 1.5)  # wider than the prior, so that the weights are bounded
    elbo, weighted = estimate(model, data, n_samples=50, copies=200)
    exact = -nll_at(model, data, 0.0).numpy()
    kl = 3 * 0.5 * (0.4**2 + 1.5 - 1 - math.log(1.5))
    np.testing.assert_allclose(exact - elbo, kl, atol=0.06)
    np.testing.assert_allclose(weighted, exact, atol=0.05)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_weighted_bound_is_the_integral_over_a_latent_space_of_one_dimension(likelihood):
    network = {**NETWORK, "n_latent": 1}
    parts = {"encoder": Part("mlp", {**network, "dropout_rate": 0.1}), "decoder": Part("mlp", network)}
    model, data = build(spec(**parts, likelihood=Part(likelihood))), table(6)
    fix_posterior(model, 0.3, 1.4)
    grid = np.linspace(-8, 8, 201)
    log_joint = np.stack([-nll_at(model, data, z).double().numpy() - z**2 / 2 for z in grid])
    log_joint += math.log(grid[1] - grid[0]) - math.log(2 * math.pi) / 2
    exact = np.logaddexp.reduce(log_joint)
    assert np.ptp(log_joint[np.abs(grid) < 2], axis=0).min() > 1  # z matters
    elbo, weighted = estimate(model, data, n_samples=50, copies=300)
    np.testing.assert_allclose(weighted, exact, atol=0.05)
    assert (exact - elbo > 0.01).all()


def test_weighted_bound_integrates_a_latent_library():
    model, data = build(spec(library=Part("latent", LATENT))), table(6)
    ignore_z(model)
    fix_posterior(model, 0.0, 1.0)
    with torch.no_grad():
        model.library.location.weight.zero_()
        model.library.set_log_mean(4.05)
        model.library.log_var.weight.zero_()
        model.library.log_var.bias.fill_(math.log(0.3))
    prior = Normal(model.library.prior_mean[data.batch], model.library.prior_var[data.batch].sqrt())
    grid = torch.linspace(1.5, 6.5, 201)
    log_joint = [-nll_at(model, data, 0.0, torch.full((6,), ell)) + prior.log_prob(ell) for ell in grid]
    exact = torch.logsumexp(torch.stack(log_joint).double() + math.log(5 / 200), 0).numpy()
    elbo, weighted = estimate(model, data, n_samples=50, copies=300)
    np.testing.assert_allclose(weighted, exact, atol=0.05)
    assert (exact - elbo > 0.01).all()


@pytest.mark.parametrize("library", [Part("observed"), Part("latent", LATENT)])
def test_weighted_bound_is_never_below_the_elbo_and_tightens(library):
    model, data = build(spec(library=library)), table()
    few, many = run(model, data, n_samples=2), run(model, data, n_samples=100)
    assert (few.log_likelihood >= few.elbo - 1e-9).all()
    assert (many.log_likelihood >= many.elbo).all()
    assert many.log_likelihood.mean() > few.log_likelihood.mean() > few.elbo.mean()
    one = run(model, data, n_samples=1)
    np.testing.assert_allclose(one.elbo, one.log_likelihood, rtol=1e-12)


def test_elbo_is_that_of_the_model():
    """Its mean over draws is that of -loss, which uses the closed forms of the KLs."""
    model, data = build(spec(library=Part("latent", LATENT))), table(8)
    cells = all_cells(data)
    with seeded(0), torch.no_grad():
        losses = torch.stack([-model(cells).loss() for _ in range(300)]).numpy()
    elbo, _ = estimate(model, data, n_samples=20, copies=100)
    assert (np.abs(elbo - losses.mean(0)) < 4.5 * losses.std(0) / math.sqrt(300) + 0.05).all()


def test_seed_decides_and_nothing_else_is_touched():
    model, data = build(spec()), table()
    state = torch.get_rng_state()
    first = run(model, data, n_samples=3, random_state=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again, other = run(model, data, n_samples=3, random_state=1), run(model, data, n_samples=3, random_state=2)
    torch.set_rng_state(state)
    np.testing.assert_array_equal(first.elbo, again.elbo)
    assert not np.array_equal(first.elbo, other.elbo)


def test_all_cells_in_their_order_in_several_chunks(monkeypatch):
    monkeypatch.setattr(bound, "CHUNK", 5)
    model, data = build(spec(PLAIN)), table(23, PLAIN)
    ignore_z(model)
    fix_posterior(model, 0.0, 1.0)
    result = run(model, data, n_samples=2)
    np.testing.assert_allclose(result.elbo, -nll_at(model, data, 0.0).numpy(), rtol=1e-6)
    assert result.elbo.shape == result.log_likelihood.shape == (23,)
    assert result.elbo.dtype == np.float64


def test_model_is_used_in_evaluation_mode():
    model, data = build(spec(DIMS)).train(), table()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    run(model, data, n_samples=2)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
