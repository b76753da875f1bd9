import numpy as np
import pytest
import torch
from modules.small_models import DIMS, PLAIN, table

from scanpy_scvi.modules import Dimensions, ModelSpec, Part
from scanpy_scvi.posterior.counterfactual import Covariate, Decoding, decoded, interval, mean_decoded
from scanpy_scvi.posterior.shifts import Shift
from scanpy_scvi.training import seeded

CPU = torch.device("cpu")


def linear(likelihood, dims=PLAIN):
    """A model with a linear decoder."""
    spec = ModelSpec(
        dims=dims,
        encoder=Part("linear", {"n_latent": 3}),
        library=Part("observed"),
        decoder=Part("linear", {"n_latent": 3}),
        likelihood=Part(likelihood),
        prior=Part("normal"),
    )
    with seeded(0):
        return spec.build().eval()


def everything(model, cells, rows, z, how):
    return np.concatenate([values for _, values in decoded(model, cells, rows, z, how, device=CPU)])


@pytest.mark.parametrize("n", [1, 37, 1100])
def test_a_linear_decoder_has_a_closed_form(n):
    """W (z + delta) + b for the means of a normal density; the softmax of it for proportions."""
    rng = np.random.default_rng(0)
    cells, rows, z = table(n, PLAIN), np.arange(n), rng.normal(size=(n, 3))
    for likelihood, size in (("gaussian", None), ("nb", 50.0)):
        model = linear(likelihood)
        w, b = (t.detach().double().numpy() for t in (model.decoder.logits.weight, model.decoder.logits.bias))
        expected = z @ w.T + b
        if size is not None:
            expected = size * np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
        found = everything(model, cells, rows, z, Decoding(size))
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)
        some = everything(model, cells, rows, z, Decoding(size, np.array([5, 2])))
        np.testing.assert_array_equal(some, found[:, [5, 2]])
        mean = mean_decoded(model, cells, rows, z, Decoding(size), device=CPU)
        np.testing.assert_allclose(mean, expected.mean(0), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("column", [None, 0])
def test_categories_are_exchanged_and_averaged(column):
    model, cells, rows = linear("gaussian", DIMS), table(20, DIMS), np.array([3, 4, 11])
    z = np.random.default_rng(0).normal(size=(3, 3))
    v = model.decoder.logits.covariate_weight.detach().numpy()
    first = 0 if column is None else DIMS.n_batches
    size = DIMS.n_batches if column is None else DIMS.n_categories[column]
    weights = np.zeros(size)
    weights[[0, 2]] = 0.25, 0.75
    plain = everything(model, cells, rows, z, Decoding(None))
    codes = (cells.batch if column is None else cells.categorical[:, column])[rows]
    found = everything(model, cells, rows, z, Decoding(None, covariate=Covariate(column, weights)))
    expected = plain - v[:, first + codes].T + 0.25 * v[:, first] + 0.75 * v[:, first + 2]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_intervals_hold_one_more_type_as_often_as_they_promise():
    """Shifts of types from a normal distribution, decoded by a linear map: an exact t interval, and standard error."""
    rng = np.random.default_rng(0)
    dims = Dimensions(n_genes=6)
    model, cells, rows = linear("gaussian", dims), table(2, dims), np.arange(2)
    z, inside, standardised = np.zeros((2, 3)), [], []
    w, b = (t.detach().double().numpy() for t in (model.decoder.logits.weight, model.decoder.logits.bias))
    for _ in range(400):
        own = rng.normal(0, 1, (5, 3))
        new, shift = rng.normal(0, 1, 3), Shift(own[:4].mean(0), own[:4], of_types=True)
        mean = w @ shift.delta + b
        found = interval(model, cells, rows, z, shift, mean, Decoding(None), device=CPU)
        inside.append((found.low <= w @ new + b) & (w @ new + b <= found.high))
        standardised.append(found.se**2 / ((w**2).sum(1) / 4))
    assert 0.93 < np.mean(inside) < 0.97
    np.testing.assert_allclose(np.mean(standardised), 1, atol=0.06)


def test_intervals_of_proportions_are_those_of_their_logarithms():
    rng = np.random.default_rng(0)
    model, cells, rows = linear("nb"), table(9, PLAIN), np.arange(9)
    z, own = rng.normal(size=(9, 3)), rng.normal(0, 0.5, (3, 3))
    for of_types, quantile, factor in ((True, 4.302653, np.sqrt(4 / 3)), (False, 1.959964, 1.0)):
        shift, how = Shift(own.mean(0), own, of_types=of_types), Decoding(1e4)
        mean = mean_decoded(model, cells, rows, z + shift.delta, how, device=CPU)
        logs = [np.log(mean_decoded(model, cells, rows, z + o, how, device=CPU)) for o in own]
        found, sd = interval(model, cells, rows, z, shift, mean, how, device=CPU), np.std(logs, axis=0, ddof=1)
        np.testing.assert_allclose(found.se, mean * sd / (np.sqrt(3) if of_types else 1), rtol=1e-5)
        np.testing.assert_allclose(np.log(found.high / mean), quantile * sd * factor, rtol=1e-4)
        np.testing.assert_allclose(found.low * found.high, mean**2, rtol=1e-6)
        assert (found.low > 0).all()
