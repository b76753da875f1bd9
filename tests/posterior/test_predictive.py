"""Replicates against a dense computation of the same draws, and against models whose counts they are."""

import dataclasses

import numpy as np
import pytest
import torch
from modules.small_models import LATENT, PLAIN, all_cells, build, spec, table, table_of

from scanpy_scvi.modules import Part
from scanpy_scvi.posterior import predictive
from scanpy_scvi.posterior.calibration import GENE_GROUPS, LEVELS, RankCounter
from scanpy_scvi.posterior.predictive import draw_replicate, predictive_check
from scanpy_scvi.posterior.statistics import CountStatistics, Replicated
from scanpy_scvi.training import seeded

CPU = torch.device("cpu")


def check(model, data, n_samples=20, seed=0):
    return predictive_check(model, data, n_samples=n_samples, random_state=seed, device=CPU)


@torch.no_grad()
def simulated_by(model, data, seed=1):
    """The same cells with counts that the model draws; the library does not depend on them."""
    with seeded(seed):
        cells = all_cells(data)
        x = draw_replicate(model, cells, model.encode(cells)).numpy()
    x[x.sum(1) == 0, 0] = 1
    return dataclasses.replace(
        table_of(x, PLAIN),
        log_size_factor=data.log_size_factor,
        batch=data.batch,
        labels=data.labels,
        categorical=data.categorical,
        continuous=data.continuous,
    )


@pytest.fixture(scope="module")
def known():
    """A model that ignores z, so that counts are independent of their posterior, and cells drawn from it."""
    model = build(spec(PLAIN, library=Part("size_factor")))
    with torch.no_grad():
        for block in model.decoder.mlp.blocks:
            block.linear.weight.zero_()
        model.decoder.logits.bias.copy_(torch.linspace(-3, 2.5, 23))
        model.likelihood.set_log_theta(torch.linspace(-1, 2, 23))
    return model, simulated_by(model, table(3000, PLAIN, depth=30))


@pytest.mark.parametrize("library", [Part("observed"), Part("latent", LATENT)])
@torch.no_grad()
def test_equals_numpy_on_the_whole_stack_of_replicates(library):
    model, data, K = build(spec(library=library)), table(40), 12
    found, cells = check(model, data, K, seed=3), all_cells(table(40))
    posterior = model.encode(cells)
    with seeded(3):
        stack = torch.stack([draw_replicate(model, cells, posterior) for _ in range(K)]).numpy().astype(float)
    x = np.zeros((40, 23))
    x[cells.counts.cell_of_entry().numpy(), cells.counts.indices.numpy()] = cells.counts.data.numpy()
    for found_of, axis in ((found.genes, 0), (found.cells, 1)):
        for name, statistic in {
            "mean": np.mean,
            "variance": np.var,
            "zero_fraction": lambda a, axis: (a == 0).mean(axis),
            "cv": lambda a, axis: a.std(axis) / np.where(a.any(axis), a.mean(axis), np.nan),
        }.items():
            observed, replicates = statistic(x, axis=axis), statistic(stack, axis=axis + 1)
            np.testing.assert_allclose(found_of[name].observed, observed, rtol=1e-9)
            np.testing.assert_allclose(found_of[name].replicated, np.nanmean(replicates, 0), rtol=1e-9)
            near = np.isclose(replicates, observed, rtol=1e-9)  # the same sums in another order
            larger = ((replicates > observed) & ~near).sum(0)
            tail = (larger + near.sum(0) / 2 + 0.5) / (1 + (~np.isnan(replicates)).sum(0))
            np.testing.assert_allclose(found_of[name].tail, np.where(np.isnan(observed), np.nan, tail), rtol=1e-9)
    below, equal = (stack < x).sum(0), (stack == x).sum(0)
    rng = np.random.default_rng(0)
    pit = (below + rng.uniform(0, equal + 1, (4000, *x.shape))) / (K + 1)  # randomised
    everything = [r for r in range(len(found.coverage.level)) if found.coverage.group[r] == "all"]
    for r in everything:
        level = found.coverage.level[r]
        assert abs(found.coverage.coverage[r] - (np.abs(pit - 0.5) <= level / 2).mean()) < 3e-3


def test_a_model_is_calibrated_on_its_own_counts(known):
    found = check(*known, 30)
    for group, level, coverage in zip(found.coverage.group, found.coverage.level, found.coverage.coverage, strict=True):
        assert abs(coverage - level) < 0.015, (group, level)
    for statistics in (found.genes, found.cells):
        for name, values in statistics.items():
            tail = values.tail[~np.isnan(values.tail)]
            assert abs(tail.mean() - 0.5) < 5 * np.sqrt(1 / 12 / len(tail)), name
    cells = found.cells["mean"].tail  # of 3,000: uniform, so outside of 30 replicates in one of 31 on either side
    assert abs((cells < 0.75 / 31).mean() - 1 / 31) < 0.02
    assert abs((cells > 1 - 0.75 / 31).mean() - 1 / 31) < 0.02


def test_intervals_without_overdispersion_are_too_narrow(known):
    model, data = known
    with seeded(0):
        poisson = build(spec(PLAIN, library=Part("size_factor"), likelihood=Part("poisson")))
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("likelihood")}
    poisson.load_state_dict(state)
    found = check(poisson, data)
    coverage = found.coverage.coverage[[g == "mean above 1" for g in found.coverage.group]]
    assert (coverage < np.array(LEVELS) - 0.015).all()
    assert (found.genes["variance"].tail < 0.1).mean() > 0.6


def test_chunks_and_seeds(known, monkeypatch):
    model, data = known
    first, again, other = check(model, data), check(model, data), check(model, data, seed=1)
    np.testing.assert_array_equal(first.genes["variance"].replicated, again.genes["variance"].replicated)
    assert (first.genes["variance"].replicated != other.genes["variance"].replicated).any()
    monkeypatch.setattr(predictive, "CHUNK", 3000)
    whole = check(model, data)
    for name in ("mean", "cv"):
        np.testing.assert_array_equal(whole.cells[name].observed, first.cells[name].observed)
        np.testing.assert_array_equal(whole.genes[name].observed, first.genes[name].observed)
    np.testing.assert_allclose(whole.coverage.coverage, first.coverage.coverage, atol=5e-3)


def test_statistics_of_what_has_no_counts():
    zeros = np.zeros(1)
    found = CountStatistics.of_sums(zeros, zeros, zeros, 5)
    assert (found.mean[0], found.variance[0], found.zero_fraction[0]) == (0, 0, 1)
    assert np.isnan(found.cv[0])
    assert np.isnan(Replicated.of(np.array([np.nan]), np.array([[1.0], [np.nan]])).tail[0])
    some = Replicated.of(np.array([2.0]), np.array([[1.0], [np.nan], [2.0], [3.0]]))
    assert some.replicated[0] == 2
    assert some.tail[0] == (1 + 0.5 + 0.5) / 4


def test_ranks_by_hand():
    """One gene, one count above all of four replicates: the transform is uniform on [0.8, 1]."""
    ranks = RankCounter(np.array([5.0]), 4)
    ranks.add(np.array([[4]]), np.array([[0]]))
    found = ranks.coverage()
    assert found.group == ["all"] * len(LEVELS) + [GENE_GROUPS[3]] * len(LEVELS)
    wanted = [max(0.0, ((1 + level) / 2 - 0.8) / 0.2) for level in LEVELS]
    np.testing.assert_allclose(found.coverage[: len(LEVELS)], wanted)
