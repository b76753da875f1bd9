from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import LATENT, all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.posterior import ExpressionRequest, expression, normalized_expression
from scanpy_scvi.training import seeded

CPU = torch.device("cpu")
WEIGHTS = np.array([0.5, 0.2, 0.3])


@pytest.fixture(scope="module")
def data():
    return table()


@pytest.fixture(scope="module", params=["observed library, nb", "latent library, zinb"])
def model(request):
    parts = {"library": Part("latent", LATENT), "likelihood": Part("zinb")} if "zinb" in request.param else {}
    return build(spec(**parts))


def run(model, data, genes=None, *, batch_weights=None, **options):
    request = ExpressionRequest(batch_weights=batch_weights, **options)
    chunks = list(normalized_expression(model, data, request, genes=genes, device=CPU))
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in chunks]), np.arange(data.n_cells))
    return np.concatenate([values for _, values in chunks])


def one_batch(code):
    return np.eye(3)[code]


@torch.no_grad()
def decoded(model, cells, z, batch):
    return model.likelihood.proportions(model.decode(z, replace(cells, batch=batch)))


@pytest.mark.parametrize("n_samples", [None, 3])
@pytest.mark.parametrize("batch_weights", [None, WEIGHTS])
def test_totals_are_the_library_size(model, data, n_samples, batch_weights):
    options = {"n_samples": n_samples, "batch_weights": batch_weights}
    np.testing.assert_allclose(run(model, data, **options).sum(1), 1e4, rtol=1e-5)
    np.testing.assert_allclose(run(model, data, library_size=1.0, **options).sum(1), 1, rtol=1e-5)
    with torch.no_grad():
        own = model.library.mean(all_cells(data)).exp()
    np.testing.assert_allclose(run(model, data, library_size=None, **options).sum(1), own, rtol=1e-5)


def test_each_cell_in_its_own_batch_by_default(model, data):
    cells = all_cells(data)
    with torch.no_grad():
        z = model.encode(cells).mean
    expected = decoded(model, cells, z, cells.batch)
    np.testing.assert_allclose(run(model, data, library_size=1.0), expected, rtol=1e-6)
    own = np.choose(data.batch[:, None], [run(model, data, batch_weights=one_batch(b)) for b in range(3)])
    np.testing.assert_allclose(run(model, data), own, rtol=1e-5)


def test_average_over_batches_is_arithmetic(model, data):
    single = [run(model, data, batch_weights=one_batch(b)) for b in range(3)]
    assert np.abs(single[0] / single[1] - 1).max() > 0.1  # batches differ
    np.testing.assert_allclose(run(model, data, batch_weights=WEIGHTS), np.tensordot(WEIGHTS, single, 1), rtol=1e-5)
    np.testing.assert_allclose(
        run(model, data, batch_weights=np.array([0.4, 0, 0.6])), 0.4 * single[0] + 0.6 * single[2], rtol=1e-5
    )


def test_average_over_batches_does_not_depend_on_a_cells_own(model, data):
    other = replace(data, batch=(data.batch + 1) % 3)
    np.testing.assert_allclose(
        run(model, other, batch_weights=WEIGHTS), run(model, data, batch_weights=WEIGHTS), rtol=1e-5
    )


def test_draws_are_averaged_and_batches_share_them(model, data):
    """By hand, with the same random numbers: one z a draw, decoded in every batch."""
    cells = all_cells(data)
    with seeded(11), torch.no_grad():
        posterior = model.encode(cells)
        expected = torch.zeros(37, 23)
        for _ in range(4):
            z = posterior.sample()
            for code, weight in enumerate(WEIGHTS):
                expected += weight / 4 * decoded(model, cells, z, torch.full_like(cells.batch, code))
    got = run(model, data, batch_weights=WEIGHTS, library_size=1.0, n_samples=4, random_state=11)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_seed_decides_and_nothing_else_is_touched(model, data):
    state = torch.get_rng_state()
    first = run(model, data, n_samples=2, random_state=3)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first, run(model, data, n_samples=2, random_state=3))
    assert not np.array_equal(first, run(model, data, n_samples=2, random_state=4))
    np.testing.assert_array_equal(run(model, data, random_state=3), run(model, data, random_state=4))  # no draws


def test_many_draws_of_a_narrow_posterior_are_near_its_mean(data):
    model = build(spec())
    with torch.no_grad():
        model.encoder.log_var.weight.zero_()
        model.encoder.log_var.bias.fill_(-9.0)
    np.testing.assert_allclose(run(model, data, n_samples=200), run(model, data), rtol=0.02)


def test_genes_come_in_the_order_asked_for(model, data):
    genes = np.array([20, 0, 7])
    np.testing.assert_array_equal(run(model, data, genes), run(model, data)[:, genes])


def test_chunks_do_not_matter(model, data, monkeypatch):
    whole = run(model, data, batch_weights=WEIGHTS)
    monkeypatch.setattr(expression, "CHUNK", 4)
    np.testing.assert_allclose(run(model, data, batch_weights=WEIGHTS), whole, rtol=1e-4)


def test_one_cell_is_enough(model, data):
    single = replace(
        table(1),
        batch=data.batch[:1],
        labels=data.labels[:1],
        categorical=data.categorical[:1],
        continuous=data.continuous[:1],
    )
    assert run(model, single).shape == (1, 23)


@pytest.mark.parametrize("n_samples", [0, -2])
def test_number_of_draws_must_be_positive(model, data, n_samples):
    with pytest.raises(ValueError, match=rf"n_samples is {n_samples}, but must be positive"):
        run(model, data, n_samples=n_samples)


def test_result_is_float32(model, data):
    assert run(model, data, batch_weights=WEIGHTS, n_samples=2).dtype == np.float32
