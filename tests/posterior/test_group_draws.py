import numpy as np
import pytest
import torch
from modules.small_models import all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.posterior.comparison import ComparisonOptions
from scanpy_scvi.posterior.group_draws import GroupDraws

CPU = torch.device("cpu")
CODES = np.arange(37) % 3


@pytest.fixture(scope="module")
def data():
    return table()


def source(model, data, **options):
    options = {"n_draws": 2000, "batches": np.arange(3)} | options
    return GroupDraws(model, data, CODES, ComparisonOptions(**options), random_state=0, device=CPU)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
@pytest.mark.parametrize("batches", [None, np.arange(3)])
def test_expected_are_the_counts_of_cells_in_their_own_batches(data, likelihood, batches):
    """With what zero inflation takes: it is not for the residuals to find again what the model knows."""
    model = build(spec(likelihood=Part(likelihood)))
    expected = source(model, data, batches=batches).paired([0], [1, 2]).expected
    cells = all_cells(data)
    with torch.no_grad():
        output = model.decode(model.encode(cells).mean, cells)
        shares = model.likelihood.proportions(output)
        if likelihood == "zinb":
            shares = shares * torch.sigmoid(-model.likelihood.zero_logits(output.hidden, cells.continuous[:, :0]))
    for found, inside in zip(expected, (CODES == 0, CODES != 0), strict=True):
        of_means = 1e4 * shares.numpy()[inside].mean(0)  # at the posterior means, not at draws
        np.testing.assert_allclose(found.mean, of_means, rtol=0.25)
        assert np.corrcoef(found.mean, of_means)[0, 1] > 0.99


def test_nothing_is_expected_where_nobody_asks(data):
    assert source(build(spec()), data, residuals=False).paired([0], [1, 2]).expected is None


def test_the_seeds_of_groups_rests_and_residuals_differ(data):
    draws = source(build(spec()), data)
    streams = [draws.residual_seed([code]).generate_state(2).tolist() for code in range(3)]
    for key in ([0, 2], *([0, tag, code + 1] for tag in (1, 3) for code in range(3))):
        streams.append(np.random.SeedSequence(key).generate_state(2).tolist())
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_weighted_draws_are_worth_less(data):
    drawn = source(build(spec()), data, weighted=True, n_draws=300).paired([0], [1, 2])
    assert all(1 <= n < 300 for n in drawn.n_effective)
    assert drawn.draws.second.shape == (data.n_genes, 300)
