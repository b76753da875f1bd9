import numpy as np
import torch
from modules.small_models import DIMS, NETWORK, build, spec, table
from torch import nn
from torch.nn import functional

from scanpy_scvi.modules import Part
from scanpy_scvi.training import TrainingConfig, fit, seeded
from scanpy_scvi.training.rows import BETA1, BETA2, EPS, RowAdam
from scanpy_scvi.training.start import principal_scores

FREE = {
    "encoder": Part("free", {"n_latent": 3, "n_cells": 60}),
    "decoder": Part("mlp", {**NETWORK, "norm": "none", "l2": 1.0}),
    "prior": Part("mixture", {"n_latent": 3, "n_components": 2, "radius": 2.0, "sd": 0.5, "sd_width": 0.2}),
}


def test_each_row_takes_the_steps_of_an_adam_of_its_own():
    """As torch's Adam on that row alone, stepped only when the row is read."""
    torch.manual_seed(0)
    start, target = torch.randn(5, 2), torch.randn(5, 2)
    ours = nn.Parameter(start.clone())
    optimizer = RowAdam(ours, averaging=0.0)
    twins = [nn.Parameter(row.clone()) for row in start]
    adams = [torch.optim.Adam([twin], lr=0.1, betas=(BETA1, BETA2), eps=EPS) for twin in twins]
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows = torch.from_numpy(rng.choice(4, 3, replace=False))  # the last row is never read
        z = functional.embedding(rows, ours, sparse=True)
        (z - target[rows]).square().sum(1).mean().backward()
        optimizer.step(0.1)
        for i in rows.tolist():
            adams[i].zero_grad()
            (twins[i] - target[i]).square().sum().backward()
            adams[i].step()
    torch.testing.assert_close(ours.detach(), torch.stack(twins).detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(ours[4], start[4])
    assert torch.equal(optimizer.average, ours)  # without averaging it is the row itself


def test_the_average_of_a_row_is_over_its_own_steps():
    ours = nn.Parameter(torch.zeros(2, 1))
    optimizer = RowAdam(ours, averaging=0.5)
    expected, seen = 0.0, []
    for n in range(4):
        functional.embedding(torch.tensor([1]), ours, sparse=True).sum().backward()
        optimizer.step(0.1)
        seen.append(ours[1].item())
        expected += (seen[-1] - expected) / (1 + 0.5 * n)
    assert abs(optimizer.average[1].item() - expected) < 1e-6
    assert optimizer.average[0] == 0


def test_a_fit_moves_all_rows_and_improves_all_cells():
    data = table(60)
    model = build(spec(**FREE))
    result = fit(model, data, TrainingConfig(max_epochs=40, batch_size=20, early_stopping=False))
    assert result.history[-1].train_elbo > result.history[0].train_elbo
    assert torch.isfinite(model.encoder.z).all()
    assert len(model.encoder.z.unique(dim=0)) == 60
    cells = data.take(result.validation_rows)
    with torch.no_grad():  # held-out cells, which no step of the fit has read, are placed as well as others
        placed = model(cells).loss()
        moved = model.encoder.z[cells.index] + 0.3
        output = model.decode(moved, cells)
        elsewhere = model.likelihood.nll(output, cells.log_total, cells) - model.prior.log_prob(moved, cells)
    assert (placed < elsewhere).all()


def test_the_same_seed_gives_the_same_bits():
    tables = []
    for _ in range(2):
        model = build(spec(**FREE))
        with seeded(0):
            fit(model, table(60), TrainingConfig(max_epochs=5, batch_size=20))
        tables.append(model.encoder.z.detach())
    assert torch.equal(*tables)


def test_a_restart_goes_back_in_the_table_too():
    """A rate at which the first epochs break: the fit ends all the same, at a lower one."""
    model = build(spec(**FREE))
    config = TrainingConfig(max_epochs=4, batch_size=20, learning_rate=100, warmup_steps=0, max_restarts=6)
    result = fit(model, table(60), config)
    assert result.convergence.n_restarts > 0
    assert torch.isfinite(model.encoder.z).all()


def test_principal_scores_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    data = table(80, depth=300.0)
    x = np.zeros((80, DIMS.n_genes))
    counts = data.counts
    x[np.repeat(np.arange(80), np.diff(counts.indptr)), counts.indices] = counts.data
    x = np.log1p(x * np.exp(np.median(data.log_total) - data.log_total)[:, None])
    pca = PCA(3).fit_transform(x)
    torch.manual_seed(0)
    found = principal_scores(data, 3)
    assert abs(found.std() - 1) < 1e-4
    for ours, theirs in zip(found.T, pca.T, strict=True):
        assert abs(np.corrcoef(ours, theirs)[0, 1]) > 0.99


def test_more_dimensions_than_genes_are_zero():
    found = principal_scores(table(40), DIMS.n_genes + 5)
    assert found.shape == (40, DIMS.n_genes + 5)
    assert not found[:, DIMS.n_genes :].any()
