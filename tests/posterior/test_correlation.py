import numpy as np
import pytest
import torch
from modules.small_models import all_cells, build, spec, table
from scipy import stats

from scanpy_scvi.posterior.correlation import CorrelationRequest, centred, correlate, gene_correlations
from scanpy_scvi.posterior.null_genes import draw_null_counts, fit_null_genes
from scanpy_scvi.training import TrainingConfig, seeded

CPU = torch.device("cpu")
CONFIG = TrainingConfig(max_epochs=1, batch_size=16)


def request(n_cells, **options):
    given = {
        "genes": np.array([4, 0, 9]),
        "batch_weights": np.array([0.5, 0.2, 0.3]),
        "groups": np.zeros(n_cells, int),
        "method": "pearson",
        "n_draws": 100,
        "n_null": 0,
        "interval": 0.95,
        "random_state": 3,
    }
    return CorrelationRequest(**given | options)


def run(model, data, asked):
    return gene_correlations(model, data, asked, CONFIG, n_steps=10, device=CPU)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_correlations_are_scipys(method):
    x = np.random.default_rng(0).normal(size=(50, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
    x[:, 3] = np.round(x[:, 3])  # with ties
    found = correlate(x, x[:, :2], method)
    one = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[method]
    for i in range(4):
        for j in range(2):
            assert found[i, j] == pytest.approx(one(x[:, i], x[:, j]).statistic)
    assert np.isnan(correlate(np.ones((5, 1)), x[:5], method)).all()


def test_centred_takes_off_the_means_of_groups():
    x, groups = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 4
    found = centred(x, groups)
    for g in range(4):
        np.testing.assert_allclose(found[groups == g], x[groups == g] - x[groups == g].mean(0), atol=1e-6)


@torch.no_grad()
def test_denoised_and_observed_are_numpys_on_the_same_draws():
    model, data = build(spec()), table(40)
    asked = request(40)
    rows = np.resize(np.random.default_rng(3).permutation(40), 100)
    cells = data.take(rows)
    with seeded(3):
        z = model.encode(cells).sample()
    rho = 0
    for code, weight in enumerate(asked.batch_weights):
        other = type(cells)(**{**vars(cells), "batch": torch.full_like(cells.batch, code)})
        rho = rho + weight * model.likelihood.proportions(model.decode(z, other)).numpy()
    found = run(model, data, asked)
    np.testing.assert_allclose(found.denoised, np.corrcoef(np.log(rho[:, asked.genes]).T), atol=1e-5)
    counts = all_cells(data).counts
    x = np.zeros((40, 23))
    x[counts.cell_of_entry().numpy(), counts.indices.numpy()] = counts.data.numpy()
    log = np.log1p(1e4 * x / x.sum(1, keepdims=True))[:, asked.genes]
    np.testing.assert_allclose(found.observed, np.corrcoef(log.T), atol=1e-5)
    assert np.isnan(found.null_high).all()


def test_null_counts_have_the_gene_s_moments_and_no_relation():
    data = table(4000, depth=200)
    null = draw_null_counts(data, np.array([1, 5]), 3, np.random.default_rng(0))
    x = null.counts.numpy()
    cells = all_cells(data)
    real = np.zeros((4000, 23))
    real[cells.counts.cell_of_entry().numpy(), cells.counts.indices.numpy()] = cells.counts.data.numpy()
    for column in range(6):
        gene = real[:, [1, 5][column % 2]]
        assert abs(x[:, column].mean() / gene.mean() - 1) < 0.15
        assert abs(x[:, column].std() / gene.std() - 1) < 0.25
    library = np.exp(data.log_total)
    assert np.abs(np.corrcoef((x / library[:, None]).T) - np.eye(6)).max() < 0.07


def test_null_heads_find_the_constant_proportions_of_the_counts():
    """From a start that is three times too high."""
    model, data = build(spec()), table(600, depth=400)
    null = draw_null_counts(data, np.array([1, 5, 9]), 2, np.random.default_rng(0))
    high, cells, far = null._replace(share=3 * null.share), all_cells(data), []
    for n_steps in (1, 300):
        with seeded(0), torch.no_grad():
            heads = fit_null_genes(model, data, high, CONFIG, n_steps=n_steps, device=CPU)
            found = heads.log_expression(model.decode(model.encode(cells).mean, cells).hidden, cells.batch)
        far.append((found - null.share.log()[cells.batch]).abs().mean().item())
    assert far[0] > 1
    assert far[1] < 0.2


def test_seed_decides():
    model, data = build(spec()), table(40)
    asked = request(40, n_null=4)
    first, again = run(model, data, asked), run(model, data, asked)
    other = run(model, data, asked._replace(random_state=4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.denoised != other.denoised).any()
    assert ((first.null_tail > 0) & (first.null_tail <= 1)).all()
    np.testing.assert_allclose(first.null_high, first.null_high.T)
