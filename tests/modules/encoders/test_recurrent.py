"""Codes that are read again with the zeros filled in."""

import pytest
import torch
from modules.small_models import DIMS, all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.encoders import RecurrentEncoder


@torch.no_grad()
def test_only_zeros_are_filled():
    """The second code is of the counts themselves where there are any, by a computation by hand."""
    part = Part("recurrent", {"n_latent": 4, "n_steps": 2, "n_imputer": 5})
    model = build(spec(encoder=part, decoder=Part("linear", {"n_latent": 4})))
    cells, encoder = all_cells(table()), model.encoder
    first, second = model.encode(cells).mean.chunk(2, dim=1)
    y = cells.counts.log1p()
    torch.testing.assert_close(first, torch.relu(y @ encoder.code.weight.T + encoder.code.bias))
    hidden = torch.relu(first @ encoder.down.weight.T + encoder.down.bias)
    suggested = hidden @ encoder.up.weight.T + encoder.up.bias
    filled = y + (y == 0) * suggested
    torch.testing.assert_close(second, torch.relu(filled @ encoder.code.weight.T + encoder.code.bias))
    assert not torch.allclose(first, second)


def test_steps_share_the_latent_dimensions():
    with pytest.raises(ValueError, match="n_latent is 5, which cannot be shared among 2 steps"):
        RecurrentEncoder(DIMS, n_latent=5, n_steps=2)
