"""The sparse-shift prior against an enumeration of its gates, and against Monte Carlo."""

import itertools
import math

import numpy as np
import pytest
import torch
from modules.small_models import all_cells, table
from scipy import stats
from torch.distributions import Normal, kl_divergence

from scanpy_scvi.modules import Dimensions
from scanpy_scvi.modules.encoders import LatentPosterior
from scanpy_scvi.modules.latent_order import LatentOrder
from scanpy_scvi.modules.priors import PerturbationLinks, SparseShift, StandardNormal
from scanpy_scvi.training import seeded

DIMS = Dimensions(n_genes=23, n_labels=4)
CELLS = all_cells(table(12, DIMS))
PERTURBED = {0: [], 1: [0], 2: [1], 3: [0, 1]}
"""Perturbations of each label: a control, two alone, both."""
N_LATENT = 3


def prior(**options):
    with seeded(0):
        made = SparseShift(DIMS, n_latent=N_LATENT, n_perturbations=2, n_links=4, **options)
        with torch.no_grad():
            made.shift.normal_(std=2)
            if options.get("gates") != "open":
                made.logit.normal_()
    pairs = [(label, k) for label, those in PERTURBED.items() for k in those]
    made.set_links(PerturbationLinks(*(torch.tensor(column) for column in zip(*pairs, strict=True))))
    return made


def posterior(n=12):
    with seeded(1):
        return LatentPosterior(torch.randn(n, N_LATENT), torch.rand(n, N_LATENT) + 0.05)


def by_enumeration(made, q):
    """Mean over all states of the gates of the KL that torch's own normals have."""
    logit, shift = made.logit.detach().double(), made.shift.detach().double()
    open_probability = torch.sigmoid(logit)
    total = torch.zeros(CELLS.n_cells, dtype=torch.float64)
    for state in itertools.product((0.0, 1.0), repeat=logit.numel()):
        gate = torch.tensor(state, dtype=torch.float64).reshape(logit.shape)
        weight = torch.where(gate > 0, open_probability, 1 - open_probability).prod()
        mean = torch.stack([(gate * shift)[PERTURBED[int(label)]].sum(0) for label in CELLS.labels])
        of_q = Normal(q.mean.double(), q.var.double().sqrt())
        total += weight * kl_divergence(of_q, Normal(mean, torch.ones_like(mean))).sum(1)
    return total


def test_kl_is_the_mean_over_all_states_of_the_gates():
    made, q = prior(), posterior()
    found = made.kl(q, q.mean, CELLS).detach().double()
    np.testing.assert_allclose(found, by_enumeration(made, q), rtol=2e-5)


def test_a_control_and_closed_gates_leave_the_standard_normal():
    made, q = prior(), posterior()
    unshifted = StandardNormal(DIMS).kl(q, q.mean, CELLS)
    control = CELLS.labels == 0
    assert 0 < control.sum() < 12
    torch.testing.assert_close(made.kl(q, q.mean, CELLS)[control], unshifted[control])
    made.harden(torch.zeros(2, N_LATENT, dtype=torch.bool), made.shift.detach().clone())
    torch.testing.assert_close(made.kl(q, q.mean, CELLS), unshifted)


def test_gumbel_draws_have_the_exact_kl_in_the_mean():
    made, q = prior(gates="gumbel"), posterior()
    exact = prior().kl(q, q.mean, CELLS).detach()
    torch.testing.assert_close(made.eval().kl(q, q.mean, CELLS), exact)
    with seeded(2):
        draws = torch.stack([made.train().kl(q, q.mean, CELLS).detach() for _ in range(4000)])
    error = draws.std(0) / math.sqrt(len(draws))
    assert (draws.std(0)[CELLS.labels > 0] > 0.01).all()
    assert ((draws.mean(0) - exact).abs() < 5 * error + 1e-5).all()


def test_gumbel_has_gradients_of_its_gates():
    made, q = prior(gates="gumbel"), posterior()
    with seeded(0):
        made.kl(q, q.mean, CELLS).sum().backward()
    assert made.logit.grad.abs().sum() > 0


def test_log_prob_is_that_of_the_shifted_normal():
    made, z = prior(), posterior().mean
    opened = (made.logit > 0).float() * made.shift.detach()
    means = torch.stack([opened.detach()[PERTURBED[int(label)]].sum(0) for label in CELLS.labels])
    expected = stats.norm(means.numpy(), 1).logpdf(z.numpy()).sum(1)
    np.testing.assert_allclose(made.log_prob(z, CELLS).detach(), expected, rtol=1e-5)
    made.harden(made.logit > 0, made.shift.detach().clone())
    q = LatentPosterior(z, None)
    np.testing.assert_allclose(made.kl(q, z, CELLS), -expected, rtol=1e-5)


@pytest.mark.parametrize("pricing", ["log", "linear"])
def test_prices(pricing):
    made = prior(pricing=pricing)
    made.price.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    q, price = made.open_probability().detach().double().numpy(), made.price.double().numpy()
    expected = price * q if pricing == "linear" else -stats.beta(1, 1 + price).logpdf(q) + np.log(1 + price)
    np.testing.assert_allclose(made.penalty().item(), expected.sum(), rtol=1e-5)
    assert prior(gates="open").penalty() is None
    assert not prior(gates="open").logit.requires_grad


def test_an_open_gate_pays_where_its_shift_beats_its_price():
    """n cells at posterior mean m gain n m^2 / 2 by an open gate with the best shift: the optimum follows the sign."""
    for price, opened in ((5.9, True), (6.1, False)):
        made = prior(pricing="linear")
        made.price.fill_(price)
        label = CELLS.labels == 1
        n = int(label.sum())
        m = math.sqrt(2 * 6.0 / n)
        q = LatentPosterior(torch.where(label[:, None], m, 0.0).expand(12, N_LATENT), torch.ones(12, N_LATENT))
        with torch.no_grad():
            made.shift.fill_(m)
        losses = []
        for logit in (40.0, -40.0):
            with torch.no_grad():
                made.logit.fill_(-40.0)[0, 0] = logit
            losses.append((made.kl(q, q.mean, CELLS)[label].sum() + made.penalty()).item())
        assert (losses[0] < losses[1]) == opened


def test_renaming_latent_dimensions_renames_all():
    made, q = prior(), posterior()
    made.price.uniform_()
    before, price = made.kl(q, q.mean, CELLS), made.penalty()
    order = LatentOrder.of([2, 0, 1], [1, -1, -1])
    made.reorder_latent(order)
    renamed = LatentPosterior(q.mean[:, order.order] * order.sign, q.var[:, order.order])
    torch.testing.assert_close(made.kl(renamed, renamed.mean, CELLS), before)
    torch.testing.assert_close(made.penalty(), price)


def test_links_of_a_file_are_checked():
    made = prior()
    made.check()
    made.label[0] = 4
    with pytest.raises(ValueError, match="label 2 to 4 of 4"):
        made.check()
