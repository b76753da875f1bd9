import numpy as np
import pytest
import torch
from scipy.stats import ortho_group
from screens import QUICK, screen

import scanpy_scvi as sv
from scanpy_scvi.metrics import mcc
from scanpy_scvi.modules.latent_map import LatentMap
from scanpy_scvi.numerics.label_shifts import estimate_shifts
from scanpy_scvi.numerics.shift_rule import ShiftRule, gate_probability
from scanpy_scvi.numerics.sparse_rotation import sparse_rotation
from scanpy_scvi.store.load import load
from scanpy_scvi.training.shifted import ShiftPlan, can_rotate, posterior_means, single_groups, turn_again


def plan(links, n_perturbations, *, control=True):
    label, perturbation = np.array(links, np.int64).reshape(-1, 2).T
    return ShiftPlan(label, perturbation, n_perturbations, control, True, 0.5, ShiftRule(0.5, 0.3, 2.0))


def test_groups_are_of_cells_with_one_perturbation():
    """Labels: control, A, A+B, B under another name, C of no cell."""
    made = plan([(1, 0), (2, 0), (2, 1), (3, 1), (4, 2)], 3)
    np.testing.assert_array_equal(made.design(5).toarray(), [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
    groups, control = single_groups(made, np.array([0, 1, 2, 3, 3, 0]), 5)
    assert groups.tolist() == [2, 0, -1, 1, 1, 2]
    assert control == 2
    groups, control = single_groups(made, np.array([2, 3, 2, 1]), 5)
    assert groups.tolist() == [-1, 1, -1, 0]
    assert control is None


@pytest.mark.parametrize(
    ("sizes", "control"),
    [([5, 5], None), ([5, 5, 5], 2), ([5, 5], 1), ([5, 1, 9], 2), ([1, 1, 9], 2), ([2, 2], None), ([1] * 9, None)],
)
def test_what_is_too_little_for_a_rotation_is_known_before(sizes, control):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    z = np.random.default_rng(0).normal(size=(len(groups), 3))
    try:
        sparse_rotation(z, groups, control=control)
    except ValueError:
        assert not can_rotate(groups, control, 3)
    else:
        assert can_rotate(groups, control, 3)
    assert not can_rotate(np.full(5, -1), None, 3)


@pytest.mark.parametrize("method", ["svae+", "svae", "ivae"])
@pytest.mark.parametrize("control", ["control", None])
def test_a_latent_space_that_drifted_is_turned_back(method, control):
    adata = screen()
    sv.tl.svae(adata, "perturbation", control=control, method=method, **QUICK | {"max_epochs": 40})
    fitted = load(adata, "svae")
    model, table = fitted.model, fitted.read(adata)
    links = [(int(label), int(k)) for label, k in zip(model.prior.label, model.prior.perturbation, strict=True)]
    made = plan(links, len(model.prior.shift), control=control is not None)
    axes = posterior_means(model, table)
    turn = torch.from_numpy(ortho_group.rvs(4, random_state=0).astype(np.float32))
    for part in (model.encoder, model.decoder):
        part.map_latent(LatentMap(turn, torch.zeros(4)))
    drifted = posterior_means(model, table)
    decoded = model.decode(torch.from_numpy(drifted), table.take(np.arange(table.n_cells)))
    assert mcc(axes, drifted).mcc < 0.9
    turn_again(model, table, made, random_state=0)
    means, prior = posterior_means(model, table), model.prior
    assert mcc(axes, means).mcc > 0.995
    # what is decoded, and lengths but for the origin, are as before
    again = model.decode(torch.from_numpy(means), table.take(np.arange(table.n_cells)))
    np.testing.assert_allclose(again.params.detach(), decoded.params.detach(), rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(np.linalg.svd(np.cov(means.T))[1], np.linalg.svd(np.cov(drifted.T))[1], rtol=1e-3)
    # shifts and gates are those of these cells
    design = made.design(prior.n_labels)
    found = estimate_shifts(means, table.labels, design, batch=table.batch, free_origin=made.control)
    np.testing.assert_allclose(found.origin, 0, atol=1e-5)
    np.testing.assert_allclose(prior.shift.detach(), found.shift, atol=1e-4)
    best = gate_probability(found.evidence, prior.price.numpy(), linear=method == "svae")
    best = np.ones_like(best) if method == "ivae" else best
    np.testing.assert_allclose(prior.open_probability().detach(), best, atol=2e-3)
