import numpy as np
import pytest
import torch
from modules.small_models import LATENT, all_cells, build, spec, table

from scanpy_scvi.modules import Bound, Part
from scanpy_scvi.modules.encoders import LatentPosterior
from scanpy_scvi.training import seeded


def test_loss_weighs_the_kl_of_z_alone():
    bound = Bound(torch.tensor([10.0, 20.0]), torch.tensor([2.0, 4.0]), torch.tensor([1.0, 3.0]))
    assert bound.loss().tolist() == [13.0, 27.0]
    assert bound.loss(0.5).tolist() == [12.0, 25.0]
    assert bound.loss(0.0).tolist() == [11.0, 23.0]


@pytest.mark.parametrize("library", [Part("observed"), Part("latent", LATENT)])
def test_forward_is_its_parts_at_one_draw(library):
    model, cells = build(spec(library=library)), all_cells(table())
    with seeded(7):
        bound = model(cells)
    with seeded(7):
        posterior = model.encode(cells)
        z = posterior.sample()
        log_library, kl_library = model.library(cells)
    nll = model.likelihood.nll(model.decode(z, cells), log_library, cells)
    for got, want in zip(bound.terms(), (nll, model.prior.kl(posterior, z, cells), kl_library), strict=True):
        assert torch.equal(got, want)
    assert (bound.kl_library > 0).all() == (library.name == "latent")


def test_mean_and_variance_of_draws_are_those_of_the_posterior():
    model, cells = build(spec()), all_cells(table(5))
    posterior = model.encode(cells)
    with seeded(0):
        draws = torch.stack([posterior.sample() for _ in range(4_000)])
    error = posterior.var.sqrt() / 4_000**0.5
    assert ((draws.mean(0) - posterior.mean).abs() < 4 * error).all()
    torch.testing.assert_close(draws.var(0), posterior.var, rtol=0.12, atol=0)


def test_gradient_reaches_the_encoder_through_the_draw():
    """d z / d mean = 1 and d z / d var = eps / 2 sqrt(var)."""
    mean, var = torch.zeros(4, 2, requires_grad=True), torch.full((4, 2), 0.25, requires_grad=True)
    with seeded(3):
        z = LatentPosterior(mean, var).sample()
    z.sum().backward()
    assert torch.equal(mean.grad, torch.ones(4, 2))
    torch.testing.assert_close(var.grad, z.detach() / 0.5)


def test_evaluation_of_a_cell_does_not_depend_on_its_companions():
    model, data = build(spec(likelihood=Part("zinb"))), table()
    rows = np.array([5, 30])
    cells, few = all_cells(data), data.take(rows)
    with torch.no_grad():
        whole, part = model.encode(cells), model.encode(few)
        torch.testing.assert_close(part.mean, whole.mean[rows])
        nll = [
            model.likelihood.nll(model.decode(q.mean, c), model.library.mean(c), c)
            for q, c in ((whole, cells), (part, few))
        ]
    torch.testing.assert_close(nll[1], nll[0][rows])
