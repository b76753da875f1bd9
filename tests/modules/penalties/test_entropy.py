"""The entropy of hidden units against SciPy's."""

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, all_cells, build, spec, table
from scipy import stats

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.decoders.base import DecoderOutput
from scanpy_scvi.modules.penalties import Entropy, Seen
from scanpy_scvi.modules.penalties.entropy import share_entropy


def test_it_is_the_entropy_of_column_sums():
    hidden = np.random.default_rng(0).exponential(size=(30, 8))
    hidden[:, 3] = 0
    assert share_entropy(torch.from_numpy(hidden)).item() == pytest.approx(stats.entropy(hidden.sum(0)))


def test_ends():
    one = torch.zeros(5, 4)
    one[:, 2] = 3.0
    assert share_entropy(one).item() == pytest.approx(0, abs=1e-6)
    assert share_entropy(torch.ones(5, 4)).item() == pytest.approx(np.log(4))
    assert share_entropy(torch.zeros(5, 4)).item() == pytest.approx(0, abs=1e-6)


def test_gradient():
    hidden = torch.rand(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    assert torch.autograd.gradcheck(share_entropy, hidden.requires_grad_())


def test_silent_units_leave_the_gradient_finite():
    hidden = torch.rand(6, 5)
    hidden[:, :2] = 0
    for values in (hidden, torch.zeros(6, 5)):
        x = values.clone().requires_grad_()
        share_entropy(torch.relu(x)).backward()
        assert torch.isfinite(x.grad).all()


def test_the_part_weighs_the_decoders_last_hidden_layer():
    hidden = torch.rand(40, 8)
    seen = Seen(None, None, DecoderOutput(torch.zeros(40, 23), hidden), all_cells(table(40)))
    assert Entropy(DIMS, weight=3.0)(seen).item() == pytest.approx(3 * share_entropy(hidden).item())


def test_linear_decoders_have_no_such_layer():
    with pytest.raises(ValueError, match="linear decoder"):
        Entropy(DIMS).check_use(spec(decoder=Part("linear", {"n_latent": 3})), 100)
    Entropy(DIMS).check_use(spec(), 100)
    with pytest.raises(ValueError, match="weight"):
        Entropy(DIMS, weight=-1.0)
    assert build(spec(penalties=(Part("entropy"),))).penalties[0].weight > 0
