"""Parity with scvi-tools 1.4.2 on weights, counts and answers that are kept in the repository.

Made, and compared with a living scvi-tools, in `tests/comparison`.
"""

import numpy as np
import pytest
import torch
from _fixture import PATH, read
from _weights import ISSUE_VARIANTS, Answers, ask, our_model

CASES = list(read())


def test_fixture_is_small_and_complete():
    assert PATH.stat().st_size < 300_000
    assert [str(case.variant) for case in CASES] == [str(variant) for variant in ISSUE_VARIANTS]
    assert all((case.counts.sum(0) > 0).mean() > 0.9 and (case.counts == 0).any() for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.variant))
def test_parity_at_the_posterior_mean(case):
    model = our_model(case.state, case.variant, case.dims)
    with torch.no_grad():
        ours = ask(model, case.cells)
    for name, a, b in zip(Answers._fields, ours, case.answers, strict=True):
        if b is None:
            assert a is None, name
            continue
        # Signed quantities are compared on their scale too; so is a KL near zero, a difference of terms of order one.
        scale = {"q_mean": b.std(), "zero_logits": b.std(), "kl_library": 0.1}.get(name, 0.0)
        np.testing.assert_allclose(a.expand_as(b), b, rtol=1e-5, atol=1e-5 * float(scale), err_msg=name)
