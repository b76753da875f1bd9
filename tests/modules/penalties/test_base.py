"""Penalties and prices of weights reach the loss in training, and never the bound."""

import numpy as np
import pytest
import torch
from modules.small_models import all_cells, build, spec, table

from scanpy_scvi.modules import ModelSpec, Part
from scanpy_scvi.modules.penalties import PENALTIES, Penalty, Seen
from scanpy_scvi.modules.priors import PRIORS, Prior
from scanpy_scvi.modules.priors.normal import StandardNormal
from scanpy_scvi.training import TrainingConfig, fit, seeded
from scanpy_scvi.training.diagnose import diagnose


class Pull(Penalty):
    """weight * mean of (z - 1)^2, which draws all cells away from the origin."""

    def __init__(self, dims, *, weight: float):
        super().__init__()
        self.weight = weight

    def forward(self, seen: Seen) -> torch.Tensor:
        return self.weight * (seen.z - 1).square().mean()


class Priced(Prior):
    """A standard normal prior with a scale that nothing but its price holds at 0.5."""

    def __init__(self, dims):
        super().__init__()
        self.normal = StandardNormal(dims)
        self.scale = torch.nn.Parameter(torch.zeros(()))

    def kl(self, posterior, z, cells):
        return self.normal.kl(posterior, z, cells)

    def log_prob(self, z, cells):
        return self.normal.log_prob(z, cells)

    def penalty(self):
        return 1e4 * (self.scale - 0.5).square()


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(PENALTIES, "pull", Pull)
    monkeypatch.setitem(PRIORS, "priced", Priced)


def test_only_training_sees_penalties():
    model, cells = (
        build(spec(penalties=(Part("pull", {"weight": 2.0}), Part("pull", {"weight": 1.0})))),
        all_cells(table()),
    )
    plain = build(spec())
    with seeded(1):
        bound = model.train()(cells)
    with seeded(1):
        assert torch.equal(bound.terms(), plain.train()(cells).terms())
    assert bound.penalty.shape == ()
    assert bound.penalty > 0
    assert model.eval()(cells).penalty is None
    assert plain.train()(cells).penalty is None


def test_the_spec_names_penalties_and_is_as_before_without():
    with_one = spec(penalties=(Part("pull", {"weight": 2.0}),))
    assert ModelSpec.from_json(with_one.to_json()) == with_one
    assert "penalties" not in spec().to_json()
    assert build(with_one).penalties[0].weight == 2.0


@pytest.mark.parametrize(("penalties", "mean"), [((), 0.0), ((Part("pull", {"weight": 100.0}),), 1.0)])
def test_a_fit_obeys_a_penalty(penalties, mean):
    data = table(100)
    with seeded(0):
        model = build(spec(penalties=penalties))
        fit(model, data, TrainingConfig(max_epochs=200, early_stopping=False, keep_best=False))
    with torch.no_grad():
        assert model.encode(all_cells(data)).mean.mean().item() == pytest.approx(mean, abs=0.2)


def test_a_fit_obeys_the_price_of_weights():
    data = table(100)
    model = build(spec(prior=Part("priced")))
    assert model.weight_penalty().item() == 2500
    assert build(spec()).weight_penalty() is None
    config = TrainingConfig(max_epochs=200, early_stopping=False, validation_size=0.0, keep_best=False)
    with seeded(0):
        fit(model, data, config)
    assert model.prior.scale.item() == pytest.approx(0.5, abs=0.05)


def test_a_broken_penalty_is_named():
    model, cells = build(spec(penalties=(Part("pull", {"weight": np.nan}),))), all_cells(table())
    assert diagnose(model, cells, model.train()(cells)).term == "penalties"
