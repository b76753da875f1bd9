"""Counts drawn by the likelihoods against SciPy's distributions."""

import numpy as np
import pytest
import torch
from modules.small_models import build, spec, table
from scipy import special, stats

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.likelihoods.draws import nb_draw, poisson_draw
from scanpy_scvi.training import seeded

N = 20_000
DISPERSIONS = ("gene", "gene-batch", "gene-label", "gene-cell")
LIKELIHOODS = [Part("poisson")] + [Part(name, {"dispersion": d}) for name in ("nb", "zinb") for d in DISPERSIONS]


def law(mu, theta):
    return stats.poisson(mu) if theta is None else stats.nbinom(theta, theta / (theta + mu))


def p_value(x, cdf):
    """Chi-square test on bins that each expect at least five counts."""
    edges = np.unique(np.r_[-1, np.floor(np.quantile(x, np.linspace(0, 1, 20)[1:-1])), np.inf])
    share = np.diff([cdf(e) if np.isfinite(e) else float(e > 0) for e in edges])
    seen = np.histogram(x, edges + 0.5)[0]
    few = share * len(x) < 5
    seen, share = np.r_[seen[~few], seen[few].sum()], np.r_[share[~few], share[few].sum()]
    keep = share > 0
    return stats.chisquare(seen[keep], share[keep] * len(x)).pvalue if keep.sum() > 1 else 1.0


@pytest.mark.parametrize("part", LIKELIHOODS, ids=str)
@torch.no_grad()
def test_draws_follow_the_law_that_the_likelihood_scores(part):
    """Two cells of different batch and label, drawn many times: mean, variance, zeros, and the whole distribution."""
    model, data = build(spec(likelihood=part)), table()
    first = 0
    second = np.flatnonzero((data.batch != data.batch[first]) & (data.labels != data.labels[first]))[0]
    cells = data.take(np.repeat([first, second], N))
    z = torch.tensor([[1.0, -0.5, 0.3], [-1.2, 0.4, 0.9]]).repeat_interleave(N, 0)
    output, log_library = model.decode(z, cells), model.library.mean(cells)
    with seeded(0):
        drawn = model.likelihood.sample(output, log_library, cells).numpy().astype(float)
    at = [0, N]
    mu = (log_library.exp()[:, None] * model.likelihood.proportions(output)).numpy().astype(float)[at]
    log_theta = model.likelihood.log_theta(output, cells)
    theta = None if log_theta is None else np.broadcast_to(log_theta.exp().numpy().astype(float), drawn.shape)[at]
    if part.name == "zinb":
        h = (output.hidden @ model.likelihood.zero_logits.weight.T + model.likelihood.zero_logits.bias).numpy()[at]
    pi = special.expit(h.astype(float)) if part.name == "zinb" else np.zeros_like(mu)
    p_values = []
    for i in range(2):
        x = drawn[i * N : (i + 1) * N]
        var = mu[i] + (0 if theta is None else mu[i] ** 2 / theta[i])
        mean, variance = (1 - pi[i]) * mu[i], (1 - pi[i]) * (var + pi[i] * mu[i] ** 2)
        assert (np.abs(x.mean(0) - mean) < 4.5 * np.sqrt(variance / N)).all()
        fourth = ((x - x.mean(0)) ** 4).mean(0)
        assert (np.abs(x.var(0) - variance) < 6 * np.sqrt(fourth / N) + 1e-3).all()
        for g in range(x.shape[1]):
            one = law(mu[i, g], None if theta is None else theta[i, g])
            zero = pi[i, g] + (1 - pi[i, g]) * one.cdf(0)
            assert abs((x[:, g] == 0).mean() - zero) < 4.5 * np.sqrt(zero * (1 - zero) / N) + 1e-9
            p_values.append(p_value(x[:, g], lambda k, p=pi[i, g], one=one: (p + (1 - p) * one.cdf(k)) * (k >= 0)))
    assert min(p_values) > 1e-5
    assert np.mean(np.array(p_values) < 0.05) < 0.2


@pytest.mark.parametrize("mu", [1e-3, 0.05, 0.7, 3, 40, 900])
@pytest.mark.parametrize("theta", [1e-3, 0.05, 0.5, 3, 100, 1e20])
def test_negative_binomial_for_all_sizes(mu, theta):
    with seeded(1):
        x = nb_draw(torch.full((N,), float(np.log(mu))), torch.tensor([float(np.log(theta))])).numpy()
    assert (x == np.floor(x)).all()
    assert p_value(x, law(mu, theta if theta < 1e12 else None).cdf) > 1e-4


@pytest.mark.parametrize("mu", [1e-3, 0.05, 0.7, 3, 40, 900])
def test_poisson_for_all_sizes(mu):
    with seeded(2):
        x = poisson_draw(torch.full((N,), float(np.log(mu)))).numpy()
    assert p_value(x, law(mu, None).cdf) > 1e-4


@pytest.mark.parametrize("log_mean", [-200.0, -80.0, 15.0])
@pytest.mark.parametrize("log_theta", [-20.0, 0.0, 200.0])
def test_extreme_parameters_give_finite_whole_numbers(log_mean, log_theta):
    with seeded(3):
        x = nb_draw(torch.full((1000,), log_mean), torch.tensor(log_theta))
    assert torch.isfinite(x).all()
    assert (x >= 0).all()
    assert torch.equal(x, x.floor())


def test_no_cells_no_draws():
    assert nb_draw(torch.empty(0, 3), torch.zeros(1, 3)).shape == poisson_draw(torch.empty(0, 3)).shape == (0, 3)
