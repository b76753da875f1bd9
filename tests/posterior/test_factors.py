import numpy as np
import torch
from modules.small_models import all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.posterior.factors import explained_variance, signs_by_skewness, sort_factors
from scanpy_scvi.posterior.latent import latent_moments

CPU = torch.device("cpu")


def test_explained_variance_is_that_of_the_contributions_over_cells():
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)), rng.normal(2, 1, size=(20, 3))
    found = explained_variance(z, torch.tensor(w))
    centred = w - w.mean(0)
    alone = [np.outer(z[:, d], centred[:, d]).var(0).mean() for d in range(3)]
    np.testing.assert_allclose(found.variance, alone)
    np.testing.assert_allclose(found.ratio, alone / (z @ centred.T).var(0).mean())


def test_ratios_of_uncorrelated_factors_sum_to_one():
    z = np.random.default_rng(0).normal(size=(40, 4))
    z = np.linalg.qr(z - z.mean(0))[0]
    found = explained_variance(z, torch.tensor(np.random.default_rng(1).normal(size=(30, 4))))
    np.testing.assert_allclose(found.ratio.sum(), 1)


def test_a_model_that_says_nothing_explains_nothing():
    found = explained_variance(np.zeros((5, 2)), torch.ones(4, 2))
    np.testing.assert_array_equal(found.variance, 0)
    np.testing.assert_array_equal(found.ratio, 0)


def test_signs_make_the_long_tail_positive():
    w = torch.tensor([[1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [-5.0, 5.0, 0.0]])
    np.testing.assert_array_equal(signs_by_skewness(w), [-1, 1, 1])
    np.testing.assert_array_equal(signs_by_skewness(w + 100), [-1, 1, 1])  # the mean does not count


@torch.no_grad()
def test_sorting_leaves_what_the_model_says():
    data = table()
    heads = Part("zinb", {"dispersion": "gene-cell"})
    model = build(spec(decoder=Part("linear", {"n_latent": 3}), likelihood=heads))
    model.decoder.logits.weight[:, 2] *= 4
    cells = all_cells(data)

    def said():
        output = model.decode(model.encode(cells).mean, cells)
        return output.params.softmax(1), model.likelihood.nll(output, model.library.mean(cells), cells)

    before, z = said(), latent_moments(model, data, device=CPU).mean
    explained = sort_factors(model, data, device=CPU)
    again, loadings = latent_moments(model, data, device=CPU).mean, model.decoder.loadings()
    for old, new in zip(before, said(), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)
    assert (np.diff(explained.variance) <= 0).all()
    np.testing.assert_allclose(explained.variance, explained_variance(again, loadings).variance, rtol=1e-5)
    assert (signs_by_skewness(loadings) == 1).all()
    np.testing.assert_allclose(np.abs(again[:, 0]), np.abs(z[:, 2]), rtol=1e-5)  # the long one comes first
    np.testing.assert_allclose(loadings.mean(0), 0, atol=1e-6)
