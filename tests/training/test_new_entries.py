"""A fit of new entries alone: all else stays, to the bit, whatever the likelihood and the optimiser's path."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, LATENT, NETWORK, all_cells, build, spec, table, table_of

from scanpy_scvi.modules import Part, precision
from scanpy_scvi.modules.growth import Growth, grow
from scanpy_scvi.modules.mlp import CovariateLinear
from scanpy_scvi.modules.precision import reduced_precision
from scanpy_scvi.modules.wide_linear import wide_linear
from scanpy_scvi.posterior import held_out_bound
from scanpy_scvi.training import TrainingConfig, fit, seeded
from scanpy_scvi.training.new_entries import NewEntries
from scanpy_scvi.training.start import start_new_batch

CPU = torch.device("cpu")
PARTS = {
    "encoder": Part("mlp", {**NETWORK, "dropout_rate": 0.3, "encode_covariates": True}),
    "decoder": Part("mlp", {**NETWORK, "output_covariates": True}),
}
NEW = replace(DIMS, n_batches=5)


def grown(**parts):
    model_spec = spec(**(PARTS | parts))
    model = build(model_spec)
    to = Growth(DIMS, NEW, (np.ones(3), np.ones(4), np.ones(1)), (np.array([3.0, 4.0]),) * 2)
    return grow(model_spec, model, to)


def new_cells(n_cells=200):
    """Cells of the two new batches, in which the first genes are rare or frequent, and some of an old one."""
    rng = np.random.default_rng(0)
    data = table(n_cells, NEW)
    return replace(data, batch=rng.choice([0, 3, 4], n_cells))


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"likelihood": Part("zinb", {"dispersion": "gene-batch"}), "library": Part("latent", LATENT)},
        {"likelihood": Part("nb", {"dispersion": "gene-cell"})},
        {"likelihood": Part("poisson")},
    ],
    ids=["nb", "zinb, a row a batch, latent library", "nb, dispersion of a cell", "poisson"],
)
@pytest.mark.parametrize("averaging", [0.1, 0.0])
def test_only_new_entries_change(parts, averaging):
    after = grown(**parts)
    before = {name: tensor.clone() for name, tensor in after.model.state_dict().items()}
    config = TrainingConfig(
        max_epochs=4, start_from_data=False, settle_dispersion=False, averaging=averaging, batch_size=32
    )
    with seeded(0):
        fit(NewEntries(after), new_cells(), config)
    for name, tensor in after.model.state_dict().items():
        learned = after.learned.get(name, torch.zeros_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor[~learned], before[name][~learned]), name
        if learned.any():
            assert (tensor[learned] != before[name][learned]).float().mean() > 0.5, name


def test_the_bound_of_new_cells_improves():
    after, data = grown(), new_cells(300)
    bounds = []
    for _ in range(2):
        bounds.append(held_out_bound(after.model, data, n_samples=20, device=CPU).elbo.mean())
        with seeded(0):
            fit(NewEntries(after), data, TrainingConfig(max_epochs=30, start_from_data=False, batch_size=32))
    assert bounds[1] > bounds[0] + 0.5


def test_dropout_and_batch_statistics_stand_still():
    model = NewEntries(grown())
    model.train()
    assert not any(module.training for module in model.modules())
    cells = all_cells(new_cells())
    with torch.no_grad():
        assert torch.equal(model.encode(cells).mean, model.encode(cells).mean)


def test_the_start_finds_what_a_batch_lacks():
    """Cells drawn from the model itself, one gene taken away: its logit falls, those of the others hardly move."""
    after = grown()
    data = table(400, NEW, depth=400)
    data = replace(data, batch=np.full(400, 3))
    cells = all_cells(data)
    with torch.no_grad(), seeded(0):
        posterior = after.model.encode(cells)
        drawn = after.model.likelihood.sample(after.model.decode(posterior.mean, cells), cells.log_total, cells).numpy()
    common = int(drawn.sum(0).argmax())
    drawn[:, common] = 0
    lacking = table_of(drawn + (drawn.sum(1, keepdims=True) == 0), NEW)
    lacking = replace(lacking, batch=np.full(400, 3), continuous=data.continuous, categorical=data.categorical)
    before = after.model.decoder.logits.covariate_weight.detach().clone()
    with seeded(0):
        start_new_batch(after.model, lacking, 3, device=CPU)
    moved = (after.model.decoder.logits.covariate_weight.detach() - before)[:, 3]
    assert moved[common] < -3
    assert moved[common] < moved.sort().values[1] - 2
    others = after.model.decoder.logits.covariate_weight.detach() - before
    others[:, 3] = 0
    assert not others.any()


@pytest.mark.parametrize("reduced", [True, False])
def test_a_frozen_product_has_no_gradient_and_gives_the_same_others(reduced, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: True)
    gradients = []
    for frozen in (False, True):
        with seeded(0):
            linear, h = CovariateLinear(6, 40, 2), torch.randn(9, 6, requires_grad=True)
            design = torch.randn(9, 2)
        linear.weight.requires_grad_(not frozen)
        with reduced_precision(allowed=reduced):
            wide_linear(h, linear, design).square().sum().backward()
        assert (linear.weight.grad is None) == frozen
        gradients.append([h.grad, linear.bias.grad, linear.covariate_weight.grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
