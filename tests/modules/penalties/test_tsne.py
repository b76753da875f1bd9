"""The penalty that keeps neighbours against scikit-learn's t-SNE (U16)."""

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, all_cells, build, spec, table
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold._t_sne import _joint_probabilities, _kl_divergence

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.encoders import LatentPosterior
from scanpy_scvi.modules.penalties import TSNE, Axes, Seen
from scanpy_scvi.modules.penalties.tsne import divergence
from scanpy_scvi.numerics.perplexity import joint_probabilities


def probabilities(n, perplexity=5.0, seed=0):
    y = np.random.default_rng(seed).normal(size=(n, 4))
    return _joint_probabilities(squareform(pdist(y, "sqeuclidean")).astype(np.float32), perplexity, 0)


@pytest.mark.parametrize(("n_latent", "dof"), [(2, 1), (3, 2), (2, 2.5), (5, 4)])
def test_it_is_scikit_learns_divergence_and_gradient(n_latent, dof):
    """For the same P and the same map."""
    n = 30
    p = probabilities(n)
    z = np.random.default_rng(1).normal(size=(n, n_latent))
    theirs, slope = _kl_divergence(z.ravel(), p, dof, n, n_latent)
    z = torch.from_numpy(z).requires_grad_()
    ours = divergence(torch.from_numpy(squareform(p)), z, dof)
    ours.backward()
    assert ours.item() == pytest.approx(theirs, rel=1e-9)
    if dof == 1:  # for others theirs is not the slope of what they minimise
        torch.testing.assert_close(z.grad, torch.from_numpy(slope.reshape(n, n_latent)), rtol=1e-6, atol=1e-12)


def test_gradient():
    p = torch.from_numpy(squareform(probabilities(12, perplexity=3.0)))
    z = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: divergence(p, x, 1.0), z)


def test_it_is_zero_where_both_agree_and_positive_elsewhere():
    z = torch.randn(15, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = (1 + torch.cdist(z, z).square()) ** -1
    kernel.fill_diagonal_(0)
    assert divergence(kernel / kernel.sum(), z, 1.0).item() == pytest.approx(0, abs=1e-12)
    assert divergence(torch.from_numpy(squareform(probabilities(15))), z, 1.0).item() > 0.1


def test_cells_in_one_place_have_a_gradient():
    z = torch.zeros(12, 2, requires_grad=True)
    divergence(torch.from_numpy(squareform(probabilities(12, 3.0))).float(), z, 1.0).backward()
    assert torch.isfinite(z.grad).all()


def test_the_part_looks_at_principal_components_of_log_normalised_counts():
    data = table(40)
    cells, z = all_cells(data), torch.randn(40, 3)
    weights = np.linalg.qr(np.random.default_rng(0).normal(size=(DIMS.n_genes, 4)))[0].astype(np.float32)
    level = float(np.median(data.log_total))
    x = np.zeros((40, DIMS.n_genes))
    for i in range(40):
        at = slice(data.counts.indptr[i], data.counts.indptr[i + 1])
        x[i, data.counts.indices[at]] = data.counts.data[at]
    y = np.log1p(x / x.sum(1, keepdims=True) * np.exp(level)) @ weights
    p = joint_probabilities(squareform(pdist(y, "sqeuclidean")), 6.0)
    part = TSNE(DIMS, weight=3.0, perplexity=6.0, n_pcs=4)
    assert part.n_axes == 4
    part.set_axes(Axes(torch.from_numpy(weights), np.exp(level)))
    found = part(Seen(LatentPosterior(z, None), z, None, cells)).item()
    assert found == pytest.approx(3 * divergence(torch.from_numpy(p), z.double(), 2.0).item(), rel=1e-4)
    other = TSNE(DIMS, weight=3.0, perplexity=6.0, n_pcs=4, dof=7.0)
    other.set_axes(Axes(torch.from_numpy(weights), np.exp(level)))
    expected = 3 * divergence(torch.from_numpy(p), z.double(), 7.0).item()
    assert other(Seen(LatentPosterior(z, None), z, None, cells)).item() == pytest.approx(expected, rel=1e-4)


def test_the_axes_are_of_the_fit_and_not_of_the_model():
    model = build(spec(penalties=(Part("tsne"),)))
    cells = all_cells(table(40))
    with pytest.raises(RuntimeError, match="principal axes"):
        model.train()(cells)
    model.penalties[0].set_axes(Axes(torch.eye(DIMS.n_genes), 60.0))
    assert torch.isfinite(model.train()(cells).penalty)
    assert not any("penalties" in name for name in model.state_dict())


def test_small_minibatches_are_refused():
    with pytest.raises(ValueError, match="should have 30 cells or more, but the smallest has 29"):
        TSNE(DIMS).check_use(spec(), 29)
    TSNE(DIMS).check_use(spec(), 30)
    for options in ({"weight": -1.0}, {"perplexity": 1.0}, {"dof": 0.0}):
        with pytest.raises(ValueError, match="expected"):
            TSNE(DIMS, **options)
