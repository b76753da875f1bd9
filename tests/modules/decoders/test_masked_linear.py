import numpy as np
import pytest
import torch
from modules.small_models import DIMS, all_cells, build, spec, table

from scanpy_scvi.modules import ModelSpec, Part
from scanpy_scvi.modules.cells import covariate_design
from scanpy_scvi.modules.decoders import Links
from scanpy_scvi.modules.latent_order import LatentOrder
from scanpy_scvi.training import TrainingConfig, fit, seeded

GENE = torch.tensor([0, 3, 5, 5, 7, 9, 22])
DIMENSION = torch.tensor([0, 0, 0, 1, 1, 2, 2])
SCALE = torch.tensor([1.0, 2.0, -1.0, 1.0, 1.0, 0.5, 1.0])
FREE = {"n_latent": 4, "n_links": 7, "n_free": 1}
CONFIG = {"max_epochs": 30, "batch_size": 32}


def allowed(n_free):
    mask = torch.zeros(23, 3 + n_free, dtype=torch.bool)
    mask[GENE, DIMENSION] = True
    mask[:, 3:] = True
    return mask


def model_of(options, **parts):
    encoder = Part("mlp", {"n_hidden": 8, "n_layers": 1, "norm": "batch", "dropout_rate": 0.1, "n_latent": 4})
    model = build(spec(encoder=encoder, decoder=Part("masked_linear", options), **parts))
    model.decoder.set_links(Links(GENE, DIMENSION, SCALE))
    return model


@pytest.mark.parametrize("keep_signs", [False, True])
@torch.no_grad()
def test_logits_are_those_of_the_masked_weights(keep_signs):
    model, cells, z = model_of({**FREE, "keep_signs": keep_signs}), all_cells(table()), torch.randn(37, 4)
    part = model.decoder
    u = torch.nn.functional.softplus(part.weight[:7]) if keep_signs else part.weight[:7]
    w = torch.zeros(23, 4)
    w[GENE, DIMENSION] = SCALE * u
    w[:, 3] = part.weight[7:]
    torch.testing.assert_close(part.loadings(), w)
    expected = z @ w.T + covariate_design(cells, DIMS) @ part.covariate_weight.T + part.bias
    torch.testing.assert_close(part(z, cells).params, expected)


@pytest.mark.parametrize("keep_signs", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_masked_weights_are_zero_after_every_epoch_of_a_fit(keep_signs, weight_decay):
    model, seen = model_of({**FREE, "keep_signs": keep_signs}), []
    start = model.decoder.loadings().detach().clone()

    def look(record):
        seen.append(model.decoder.loadings().detach().clone())

    with seeded(0):
        fit(model, table(200), TrainingConfig(weight_decay=weight_decay, **CONFIG), on_epoch=look)
    seen.append(model.decoder.loadings().detach())
    assert len(seen) > 2
    for weights in seen:
        assert (weights[~allowed(1)] == 0).all()
        assert (weights[allowed(1)] != 0).all()
        if keep_signs:
            assert torch.equal(weights[GENE, DIMENSION].sign(), SCALE.sign())
    assert (seen[-1] - start).abs().max() > 0.05  # it was a fit


def test_every_step_leaves_them_at_zero_and_the_gradient_there_is_zero():
    model, cells = model_of(FREE).train(), all_cells(table())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=0.5, momentum=0.9)
    for _ in range(20):
        weights = model.decoder.loadings()
        weights.retain_grad()
        model.decoder.loadings = lambda weights=weights: weights
        model(cells).loss().mean().backward()
        assert weights.grad[~allowed(1)].abs().max() > 0  # of the product's; none of it reaches a weight
        optimizer.step()
        optimizer.zero_grad()
        del model.decoder.loadings
        assert (model.decoder.loadings()[~allowed(1)] == 0).all()


@torch.no_grad()
def test_the_state_alone_brings_the_mask_back_and_the_spec_stays_short():
    model = model_of({**FREE, "keep_signs": True})
    text = ModelSpec(**{**vars(spec()), "decoder": Part("masked_linear", FREE)}).to_json()
    assert len(text) < 1500
    again = model_of({**FREE, "keep_signs": True})
    again.decoder.set_links(Links(GENE.flip(0), DIMENSION, SCALE))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.decoder.loadings(), model.decoder.loadings())


def test_dropout_of_the_latent_state_is_for_training_alone():
    model, cells, z = model_of({**FREE, "latent_dropout": 0.5}), all_cells(table()), torch.ones(37, 4)
    assert torch.equal(model.decoder(z, cells).hidden, z)
    with seeded(0):
        hidden = model.train().decoder(z, cells).hidden
    assert set(hidden.unique().tolist()) == {0.0, 2.0}


@torch.no_grad()
def test_agreement_with_the_table_is_what_the_sign_is_of():
    model = model_of(FREE)
    found = model.decoder.agreement()
    expected = [float((model.decoder.loadings()[GENE, DIMENSION] * SCALE)[d == DIMENSION].sum()) for d in range(3)]
    np.testing.assert_allclose(found, [*expected, 0], rtol=1e-6)
    model.reorder_latent(LatentOrder.of([0, 1, 2, 3], [-1, 1, 1, 1]))
    np.testing.assert_allclose(model.decoder.agreement()[0], -expected[0], rtol=1e-6)


@torch.no_grad()
def test_centring_leaves_the_sets_alone_and_the_proportions_as_they_are():
    model, cells, z = model_of(FREE), all_cells(table()), torch.randn(37, 4)
    before, sets = model.decode(z, cells).params.softmax(1), model.decoder.loadings()[:, :3].clone()
    model.decoder.centre()
    torch.testing.assert_close(model.decode(z, cells).params.softmax(1), before)
    assert torch.equal(model.decoder.loadings()[:, :3], sets)
    assert abs(model.decoder.loadings()[:, 3].mean()) < 1e-7
