"""The mixture prior against SciPy, against Monte Carlo, and against the bound of scVAE (U11)."""

import math

import numpy as np
import torch
from modules.small_models import PLAIN, all_cells, table
from scipy import stats
from scipy.special import logsumexp
from torch.distributions import Normal

from scanpy_scvi.modules.encoders import LatentPosterior
from scanpy_scvi.modules.priors import GaussianMixture, StandardNormal
from scanpy_scvi.training import seeded

CELLS = all_cells(table(6))


def prior(n_components=3, n_latent=4, seed=0, **options):
    """Components that are neither alike nor far from each other."""
    with seeded(seed):
        made = GaussianMixture(PLAIN, n_latent=n_latent, n_components=n_components, **options)
        with torch.no_grad():
            made.logits.normal_()
            made.means.normal_(std=1.5)
            made.log_sd.normal_(std=0.3)
    return made


def posterior(n_latent=4, seed=0):
    with seeded(seed):
        return LatentPosterior(torch.randn(6, n_latent), torch.rand(6, n_latent) + 1e-2)


def by_scipy(made, z):
    """log p(z) in float64."""
    pi = np.log(made.logits.detach().double().softmax(0).numpy())
    means, sds = (t.detach().double().numpy() for t in (made.means, made.log_sd.exp()))
    each = [log + stats.norm(m, s).logpdf(z).sum(-1) for log, m, s in zip(pi, means, sds, strict=True)]
    return np.stack(each, -1)


def test_log_density_and_responsibilities_are_those_of_scipy():
    made, z = prior(), posterior().mean
    joint = by_scipy(made, z.double().numpy())
    np.testing.assert_allclose(made.log_prob(z, CELLS).detach(), logsumexp(joint, 1), rtol=1e-5)
    responsibilities = made.responsibilities(z).detach().double().numpy()
    np.testing.assert_allclose(responsibilities, np.exp(joint - logsumexp(joint, 1)[:, None]), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(responsibilities.sum(1), 1, rtol=1e-6)


def test_kl_is_right_in_expectation():
    """One draw is an unbiased estimate; a large sample of log q - log p, by SciPy, is the KL."""
    made, q = prior(), posterior()
    n = 20_000
    many = LatentPosterior(q.mean.repeat(n, 1), q.var.repeat(n, 1))
    with seeded(1):
        z = many.sample()
    found = made.kl(many, z, CELLS).detach().double().reshape(n, 6)
    rng = np.random.default_rng(0)
    m, s = q.mean.double().numpy(), q.var.double().sqrt().numpy()
    draws = m + s * rng.standard_normal((n, 6, 4))
    ratios = stats.norm(m, s).logpdf(draws).sum(-1) - logsumexp(by_scipy(made, draws), -1)
    error = 4 * math.sqrt(2 / n) * ratios.std(0)
    assert (np.abs(found.mean(0).numpy() - ratios.mean(0)) < error).all()


def test_one_standard_component_is_the_standard_normal_in_expectation():
    made, q, n = prior(1), posterior(), 20_000
    with torch.no_grad():
        made.means.zero_()
        made.log_sd.zero_()
    many = LatentPosterior(q.mean.repeat(n, 1), q.var.repeat(n, 1))
    with seeded(2):
        found = made.kl(many, many.sample(), CELLS).detach().reshape(n, 6)
    exact = StandardNormal(PLAIN).kl(q, q.mean, CELLS)
    assert ((found.mean(0) - exact).abs() < 4 * found.std(0) / math.sqrt(n)).all()


def marginal_and_joint_kl(mean, var, made):
    """KL(q(z) || p(z)), and the least KL(q(z) q(k) || p(z, k)) over all q(k): the bound of scVAE with a shared q(z)."""
    z = np.linspace(-12, 12, 200_001)
    q = stats.norm(mean, math.sqrt(var)).pdf(z)
    joint = by_scipy(made, z[:, None])
    width = z[1] - z[0]
    entropy = -0.5 * (1 + math.log(2 * math.pi * var))
    return entropy - (q * logsumexp(joint, 1)).sum() * width, entropy - logsumexp((q[:, None] * joint).sum(0) * width)


def test_the_marginal_kl_is_the_tighter_bound():
    """Two components at -1 and 1: a q between them pays for the choice that it does not make."""
    made = GaussianMixture(PLAIN, n_latent=1, n_components=2)
    with torch.no_grad():
        made.means.copy_(torch.tensor([[-1.0], [1.0]]))
    gaps = []
    for mean in (0.0, 0.5, 3.0):
        marginal, joint = marginal_and_joint_kl(mean, 0.25, made)
        n = 200_000
        q = LatentPosterior(torch.full((n, 1), mean), torch.full((n, 1), 0.25))
        with seeded(3):
            found = made.kl(q, q.sample(), CELLS).detach()
        assert abs(found.double().mean().item() - marginal) < 4 * found.std().item() / math.sqrt(n)
        gaps.append(joint - marginal)
    assert gaps[0] > gaps[1] > gaps[2] > -1e-6
    assert gaps[2] < 1e-3  # far to one side there is nothing to choose
    assert gaps[0] > 0.1


def test_a_point_costs_minus_its_log_density():
    made, z = prior(), posterior().mean
    assert torch.equal(made.kl(LatentPosterior(z, None), z, CELLS), -made.log_prob(z, CELLS))


def test_the_density_does_not_depend_on_the_numbering():
    made, z = prior(5), posterior().mean
    before, order = made.log_prob(z, CELLS), made.responsibilities(z).argmax(1)
    heaviest = made.logits.argmax()
    made.settle()
    torch.testing.assert_close(made.log_prob(z, CELLS), before)
    weights = made.logits.softmax(0)
    assert (weights.diff() <= 0).all()
    assert torch.equal(order == heaviest, made.responsibilities(z).argmax(1) == 0)


def test_hyper_priors_are_those_of_their_formulas_up_to_constants():
    made = prior(concentration=2.0, radius=1.5, sharpness=3.0, sd=0.4, sd_width=0.7)
    other = prior(seed=1, concentration=2.0, radius=1.5, sharpness=3.0, sd=0.4, sd_width=0.7)

    def log_prior(p):
        pi = p.logits.detach().double().softmax(0).numpy()
        norms = np.linalg.norm(p.means.detach().double().numpy(), axis=1)
        precision = -2 * p.log_sd.detach().double().numpy()
        soft = -np.log1p(np.exp(3 * (norms / 1.5 - 1))).sum()
        return (
            stats.dirichlet(np.full(3, 2.0)).logpdf(pi / pi.sum())
            + soft
            + stats.norm(-2 * math.log(0.4), 0.7).logpdf(precision).sum()
        )

    gap = (made.penalty() - other.penalty()).item()
    assert abs(gap - (log_prior(other) - log_prior(made))) < 1e-4 * abs(gap)
    assert prior().penalty() is None


def test_a_mean_at_zero_has_a_gradient():
    made = GaussianMixture(PLAIN, n_latent=4, n_components=2, radius=1.0)
    with torch.no_grad():
        made.means.zero_()
    made.penalty().backward()
    assert torch.isfinite(made.means.grad).all()


def test_it_starts_at_clusters_of_the_cells():
    made = GaussianMixture(PLAIN, n_latent=2, n_components=3)
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0]])
    with seeded(0):
        z = centres.repeat(40, 1) + 0.1 * torch.randn(120, 2)
        made.set_places(z)
    gap = torch.cdist(made.means.detach(), centres).min(1)
    assert (gap.values < 0.1).all()
    assert len(gap.indices.unique()) == 3
    assert 0.07 < made.log_sd.exp()[0, 0].item() < 0.13


def test_more_components_than_cells_start_too():
    made = GaussianMixture(PLAIN, n_latent=2, n_components=8)
    with seeded(0):
        made.set_places(Normal(0.0, 1.0).sample((5, 2)))
    assert torch.isfinite(made.log_prob(torch.zeros(1, 2), CELLS)).all()
