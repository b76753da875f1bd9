"""What encoders do to counts before they look at them."""

import numpy as np
import torch
from modules.small_models import NETWORK, all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.encoders.inputs import thinned
from scanpy_scvi.training import seeded


def test_thinned_counts_are_binomial_over_the_share_that_is_kept():
    counts = all_cells(table()).counts
    counts = counts._replace(data=torch.full_like(counts.data, 10.0))
    with seeded(0):
        kept = torch.stack([thinned(counts, 0.3).data for _ in range(300)]) * 0.7
    assert torch.equal(kept.round(), kept.round().clamp(0, 10))
    torch.testing.assert_close(kept.round(), kept, atol=1e-5, rtol=0)
    np.testing.assert_allclose([kept.mean(), kept.var()], [7, 2.1], rtol=0.03)


@torch.no_grad()
def test_depth_is_divided_out_with_a_total():
    """Cells of twice the counts get the same z, by a network and by a linear map."""
    shallow = table()
    deep = shallow.take(np.arange(shallow.n_cells))
    for part in (
        Part("mlp", {**NETWORK, "dropout_rate": 0.0, "deterministic": True, "input_total": 100.0}),
        Part("linear", {"n_latent": 3, "input_total": 100.0}),
    ):
        model, cells = build(spec(encoder=part)), all_cells(shallow)
        doubled = type(deep)(
            **{
                **vars(cells),
                "counts": cells.counts._replace(data=2 * cells.counts.data),
                "log_total": cells.log_total + np.log(2),
            }
        )
        torch.testing.assert_close(model.encode(cells).mean, model.encode(doubled).mean, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_only_training_corrupts():
    part = Part("mlp", {**NETWORK, "norm": "none", "dropout_rate": 0.0, "deterministic": True, "corruption": 0.5})
    model, cells = build(spec(encoder=part)), all_cells(table())
    with seeded(0):
        first, second = (model.train().encode(cells).mean for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (model.eval().encode(cells).mean for _ in range(2))
    assert torch.equal(first, second)
