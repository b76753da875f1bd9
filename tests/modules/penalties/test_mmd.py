"""The discrepancy between batches against a double loop, and what it is for samples that are alike (U15)."""

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, PLAIN, all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.encoders import LatentPosterior
from scanpy_scvi.modules.penalties import MMD, Seen
from scanpy_scvi.modules.penalties.mmd import mean_discrepancy


def by_loops(z, batch, n_widths):
    """The U-statistic as it is written, mean over pairs of batches with two cells or more."""
    n = len(z)
    distance = [[np.linalg.norm(z[i] - z[j]) for j in range(n)] for i in range(n)]
    median = np.median([distance[i][j] for i in range(n) for j in range(i)])
    widths = [median * 2.0**k for k in range(-(n_widths // 2), n_widths - n_widths // 2)]

    def k(i, j):
        return np.mean([np.exp(-(distance[i][j] ** 2) / (2 * w**2)) for w in widths])

    found = []
    cells = [np.flatnonzero(batch == b) for b in np.unique(batch)]
    cells = [c for c in cells if len(c) > 1]
    for at, a in enumerate(cells):
        for b in cells[:at]:
            within = [np.mean([k(i, j) for i in c for j in c if i != j]) for c in (a, b)]
            found.append(sum(within) - 2 * np.mean([k(i, j) for i in a for j in b]))
    return np.mean(found)


@pytest.mark.parametrize("n_widths", [1, 3, 4])
@pytest.mark.parametrize("sizes", [(15, 16), (2, 29), (10, 7, 14), (8, 1, 12), (9, 0, 12, 2)])
def test_it_is_the_double_loop(sizes, n_widths):
    rng = np.random.default_rng(0)
    batch = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    z = rng.normal(size=(len(batch), 3)) + 0.7 * batch[:, None]
    if len(z) % 4 > 1:  # an odd number of pairs has one median
        z, batch = z[1:], batch[1:]
    found = mean_discrepancy(torch.from_numpy(z), torch.from_numpy(batch), len(sizes), n_widths)
    assert found.item() == pytest.approx(by_loops(z, batch, n_widths), rel=2e-2, abs=2e-3)


def test_it_is_the_double_loop_to_the_last_digit():
    rng = np.random.default_rng(1)
    batch = np.repeat([0, 1, 2], [7, 5, 2])
    z = rng.normal(size=(14, 2)) + batch[:, None]
    assert (14 * 13 // 2) % 2 == 1  # an odd number of pairs has one median
    found = mean_discrepancy(torch.from_numpy(z), torch.from_numpy(batch), 3, 3)
    assert found.item() == pytest.approx(by_loops(z, batch, 3), rel=1e-12)


def test_batches_that_are_alike_cost_nothing_on_average():
    """An unbiased statistic: over shuffles of the batches its mean is zero, and it is negative as often as not."""
    rng = np.random.default_rng(2)
    z = torch.from_numpy(rng.normal(size=(40, 2)))
    batch = np.repeat([0, 1], [15, 25])
    found = np.array([mean_discrepancy(z, torch.from_numpy(rng.permutation(batch)), 2, 3).item() for _ in range(2000)])
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(len(found))
    assert 0.4 < (found < 0).mean() < 0.7


def test_the_same_cells_twice():
    """With themselves in the within-means the statistic would be zero; without them it lacks just that."""
    z = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    twice, batch = torch.cat([z, z]), torch.repeat_interleave(torch.arange(2), 9)
    found = mean_discrepancy(twice, batch, 2, 1).item()
    squared = torch.cdist(twice, twice).square()
    off = squared[~torch.eye(18, dtype=torch.bool)]
    kernel = torch.exp(-torch.cdist(z, z).square() / (2 * off.median()))
    mean_off = (kernel.sum() - 9) / 72
    assert found == pytest.approx((2 * mean_off - 2 * kernel.mean()).item(), rel=1e-9)
    biased = found + 2 * (kernel.mean() - mean_off).item()
    assert biased == pytest.approx(0, abs=1e-12)


def test_batches_apart_cost_more_the_farther_they_are():
    z = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    batch = torch.arange(60) % 2
    prices = [mean_discrepancy(z + shift * batch[:, None], batch, 2, 3).item() for shift in (0.0, 0.5, 1.0, 3.0)]
    assert prices == sorted(prices)
    assert prices[-1] > 0.5


@pytest.mark.parametrize("codes", [[0] * 8, [0] * 7 + [1], [2, 2, 2, 2, 0, 1]])
def test_a_minibatch_without_two_batches_costs_nothing(codes):
    z = torch.randn(len(codes), 2, requires_grad=True)
    price = mean_discrepancy(z, torch.tensor(codes), 3, 3)
    assert price.item() == 0
    price.backward()
    assert not z.grad.any()


def test_cells_in_one_place_have_a_gradient():
    z = torch.zeros(6, 2, requires_grad=True)
    price = mean_discrepancy(z, torch.arange(6) % 2, 2, 3)
    price.backward()
    assert price.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(z.grad).all()


def test_gradient(monkeypatch):
    """With widths that do not move: their median is a number to the gradient, so finite differences must hold it."""
    z = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    batch = torch.tensor([0, 1, 0, 1, 1, 2, 2])
    monkeypatch.setattr(torch.Tensor, "median", lambda _: torch.tensor(1.3, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: mean_discrepancy(x, batch, 3, 3), z)


def test_the_part_weighs_it_and_sees_the_draw_of_z():
    cells = all_cells(table(40))
    z = torch.randn(40, 3)
    seen = Seen(LatentPosterior(torch.zeros(40, 3), None), z, None, cells)
    expected = mean_discrepancy(z, cells.batch, 3, 5)
    assert MMD(DIMS, weight=7.0, n_widths=5)(seen).item() == pytest.approx(7 * expected.item())


def test_one_batch_is_refused():
    with pytest.raises(ValueError, match="there is only one"):
        MMD(PLAIN).check_use(spec(PLAIN), 100)
    MMD(DIMS).check_use(spec(DIMS), 2)
    with pytest.raises(ValueError, match="weight"):
        MMD(DIMS, weight=-1.0)
    assert build(spec(penalties=(Part("mmd"),))).penalties[0].weight > 0
