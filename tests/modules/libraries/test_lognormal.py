import math
from dataclasses import replace

import pytest
import torch
from modules.small_models import LATENT, all_cells, build, spec, table
from torch.distributions import LogNormal, Normal, kl_divergence

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.libraries.lognormal import VAR_FLOOR
from scanpy_scvi.training import seeded


def latent(**options):
    return build(spec(library=Part("latent", {**LATENT, **options}))).library


@torch.no_grad()
def at(mean, var, **options):
    """Return a library whose posterior is the same N(mean, var) for every cell."""
    library = latent(**options)
    for part, value in ((library.location, mean), (library.log_var, math.log(var - VAR_FLOOR))):
        part.weight.zero_()
        part.bias.fill_(value)
    return library


@torch.no_grad()
def test_kl_is_that_of_torch_for_normals_and_for_log_normals():
    library, cells = latent(), all_cells(table())
    m, v = library.posterior(cells)
    m_s = torch.tensor([LATENT["prior_mean"][b] for b in cells.batch])
    v_s = torch.tensor([LATENT["prior_var"][b] for b in cells.batch])
    kl = library(cells).kl
    torch.testing.assert_close(kl, kl_divergence(Normal(m, v.sqrt()), Normal(m_s, v_s.sqrt())))
    torch.testing.assert_close(kl, kl_divergence(LogNormal(m, v.sqrt()), LogNormal(m_s, v_s.sqrt())))


@torch.no_grad()
def test_kl_of_the_reference_case_and_by_monte_carlo():
    """N(0.3, 0.5²) from N(-0.2, 0.8²): 0.3606 nats (U6)."""
    library = at(0.3, 0.25, prior_mean=[-0.2] * 3, prior_var=[0.64] * 3)
    assert library(all_cells(table())).kl[0].item() == pytest.approx(0.360629, abs=1e-5)
    with seeded(0):
        draws = LogNormal(0.3, 0.5).sample((200_000,))
    ratio = LogNormal(0.3, 0.5).log_prob(draws) - LogNormal(-0.2, 0.8).log_prob(draws)
    assert ratio.mean().item() == pytest.approx(0.360629, abs=4 * ratio.std().item() / math.sqrt(len(draws)))


@torch.no_grad()
def test_covariates_enter_the_posterior_only_when_asked_for():
    cells = all_cells(table())
    moved = replace(cells, batch=(cells.batch + 1) % 3)
    plain, informed = latent(), latent(encode_covariates=True)
    assert torch.equal(plain.mean(cells), plain.mean(moved))
    assert (informed.mean(cells) != informed.mean(moved)).any()


@torch.no_grad()
def test_kl_is_zero_at_the_prior_alone():
    cells = all_cells(table())
    kl = at(4.0, 0.1)(cells).kl
    torch.testing.assert_close(kl[cells.batch == 0], torch.zeros(int((cells.batch == 0).sum())), atol=1e-6, rtol=0)
    assert (kl[cells.batch != 0] > 0.05).all()


@torch.no_grad()
def test_draws_have_the_moments_of_the_posterior():
    library, cells = latent(), all_cells(table(4))
    m, v = library.posterior(cells)
    with seeded(0):
        draws = torch.stack([library(cells).log_library for _ in range(2_000)])
    torch.testing.assert_close(draws.mean(0), m, atol=0.1, rtol=0)
    torch.testing.assert_close(draws.var(0), v, rtol=0.15, atol=0)
    assert torch.equal(library.mean(cells), m)


@torch.no_grad()
def test_start_at_the_mean_log_total():
    library = latent()
    library.location.weight.zero_()
    library.set_log_mean(7.5)
    assert torch.equal(library.mean(all_cells(table())), torch.full((37,), 7.5))


@torch.no_grad()
def test_variance_has_a_floor_and_the_kl_stays_finite():
    library = latent(prior_var=[1e-4] * 3)
    library.log_var.bias.fill_(-200)
    cells = all_cells(table())
    assert torch.equal(library.posterior(cells)[1], torch.full((37,), VAR_FLOOR))
    assert torch.isfinite(library(cells).kl).all()
