"""Models that grow by new categories: where the new columns lie, what they start from, and what must not change.

That growing leaves old cells where they were is tested for every part, in `test_part_contract.py`.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, LATENT, NETWORK, PLAIN, build, spec, table

from scanpy_scvi.modules import Dimensions, Part
from scanpy_scvi.modules.growth import Grown, Growth, grow

ENCODED = Part("mlp", {**NETWORK, "dropout_rate": 0.1, "encode_covariates": True})
DECODER = Part("mlp", {**NETWORK, "output_covariates": True})


def growth(old: Dimensions = DIMS, **new: object) -> Growth:
    """Growth to some new sizes, from equal shares of the old categories but for the batch."""
    shares = (np.arange(1.0, old.n_batches + 1), *(np.ones(n) for n in old.n_categories))
    n_new = new.get("n_batches", old.n_batches) - old.n_batches
    return Growth(old, replace(old, **new), shares, tuple(np.full(5, 3.0 + i) for i in range(n_new)))


def grown(model_spec, to: Growth) -> tuple[torch.nn.Module, Grown]:
    model = build(model_spec)
    return model, grow(model_spec, model, to)


def test_columns_of_every_variable():
    """Batches 3 -> 5, categories (4, 1) -> (4, 3), two continuous: columns 0-4, 5-8, 9-11, 12-13."""
    columns = growth(n_batches=5, n_categories=(4, 3)).columns
    assert columns.kept.tolist() == [0, 1, 2, 5, 6, 7, 8, 12, 13]
    assert columns.learned.tolist() == [3, 4, 10, 11]  # 9 is the category that had no column, and stays zero
    expected = np.zeros((9, 4))
    expected[:3, :2] = np.array([[1, 2, 3]]).T / 6
    np.testing.assert_allclose(columns.start, expected, rtol=1e-6)


def test_without_new_categories_nothing_is_learned():
    columns = growth().columns
    assert columns.kept.tolist() == list(range(9))
    assert columns.learned.tolist() == []
    model, after = grown(spec(encoder=ENCODED, decoder=DECODER), growth())
    assert all(not learned.any() for learned in after.learned.values())
    for name, tensor in model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], tensor), name


def test_a_model_without_columns_gets_some_that_are_zero():
    _, after = grown(spec(PLAIN, encoder=ENCODED, decoder=DECODER), growth(PLAIN, n_batches=3))
    for module in (after.model.encoder.mlp.first_linear(), after.model.decoder.logits):
        assert module.covariate_weight.shape[1] == 3
        assert not module.covariate_weight.any()
    assert after.learned["decoder.logits.covariate_weight"].any(0).tolist() == [False, True, True]


def test_new_columns_and_rows_start_at_the_weighted_mean():
    likelihood = Part("nb", {"dispersion": "gene-batch"})
    model, after = grown(spec(encoder=ENCODED, decoder=DECODER, likelihood=likelihood), growth(n_batches=4))
    weights = torch.tensor([1.0, 2, 3]) / 6
    before, now = (m.decoder.logits.covariate_weight for m in (model, after.model))
    torch.testing.assert_close(now[:, 3], before[:, :3] @ weights)
    before, now = (m.likelihood.dispersion.log_theta for m in (model, after.model))
    torch.testing.assert_close(now[3], weights @ before)
    assert after.learned["likelihood.dispersion.log_theta"].all(1).tolist() == [False, False, False, True]


def test_a_new_batch_that_starts_from_one_batch_is_like_it():
    model_spec = spec(encoder=ENCODED, decoder=DECODER)
    to = replace(growth(n_batches=4), shares=(np.array([0.0, 1, 0]), np.ones(4), np.ones(1)))
    _, after = grown(model_spec, to)
    data = table()
    twin, new = (data.take(np.arange(data.n_cells)) for _ in range(2))
    twin, new = (replace(c, batch=torch.full_like(c.batch, code)) for c, code in ((twin, 1), (new, 3)))
    with torch.no_grad():
        means = [after.model.encode(c).mean for c in (twin, new)]
        logits = [after.model.decode(means[0], c).params for c in (twin, new)]
    torch.testing.assert_close(means[0], means[1])
    torch.testing.assert_close(logits[0], logits[1])


def test_the_prior_of_a_new_batch_is_that_of_its_own_totals():
    model, after = grown(spec(library=Part("latent", LATENT)), growth(n_batches=5))
    assert torch.equal(after.model.library.prior_mean[:3], model.library.prior_mean)
    assert after.model.library.prior_mean[3:].tolist() == [3.0, 4.0]
    assert after.spec.library.options["prior_mean"] == [*LATENT["prior_mean"], 3.0, 4.0]
    assert "library.prior_mean" not in after.learned


def test_of_the_encoder_only_the_first_layer_learns():
    _, after = grown(spec(encoder=ENCODED, decoder=DECODER), growth(n_batches=4))
    assert sorted(after.learned) == [
        "decoder.logits.covariate_weight",
        "decoder.mlp.blocks.0.linear.covariate_weight",
        "decoder.mlp.blocks.1.linear.covariate_weight",
        "encoder.mlp.blocks.0.linear.covariate_weight",
    ]


@pytest.mark.parametrize("batch", [0, 3])
def test_shifts_touch_one_batch(batch):
    _, after = grown(spec(encoder=ENCODED, decoder=DECODER), growth(n_batches=4))
    encoder, logits = after.model.encoder.mlp.first_linear(), after.model.decoder.logits
    before = [linear.covariate_weight.detach().clone() for linear in (encoder, logits)]
    difference = torch.linspace(-1, 1, DIMS.n_genes)
    after.model.encoder.shift_input(batch, difference.double())
    after.model.decoder.shift_log_means(batch, difference.double())
    moved = [linear.covariate_weight.detach() - b for linear, b in zip((encoder, logits), before, strict=True)]
    torch.testing.assert_close(moved[0][:, batch], -encoder.weight.detach() @ difference, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(moved[1][:, batch], difference, rtol=1e-4, atol=1e-6)
    assert all((m.abs().sum(0) > 0).sum() == 1 for m in moved)


def test_scales_of_the_input_are_kept_from_growth_to_growth():
    """The first growth brings them, at 1; the second keeps what was set; new categories of others bring none."""
    model_spec = spec(encoder=ENCODED)
    model, first = grown(model_spec, growth(n_batches=4))
    assert model.encoder.log_input_scale is None
    assert first.model.encoder.log_input_scale.tolist() == [0, 0, 0, 0]
    first.model.encoder.set_log_input_scale(3, 0.5)
    to = replace(growth(first.spec.dims, n_batches=5), shares=(np.ones(4), np.ones(4), np.ones(1)))
    second = grow(first.spec, first.model, to)
    assert second.model.encoder.log_input_scale.tolist() == [0, 0, 0, 0.5, 0]
    _, other = grown(model_spec, growth(n_categories=(5, 1)))
    assert other.model.encoder.log_input_scale is None
