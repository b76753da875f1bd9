"""NB and ZINB of `scanpy_scvi.numerics` against the formulas of scvi-tools in float64."""

import itertools

import numpy as np
import pytest
import torch

pytest.importorskip("scvi")

from scvi.distributions._negative_binomial import log_nb_positive, log_zinb_positive

from scanpy_scvi.numerics import negative_binomial, zero_inflated

GRID = list(
    itertools.product(
        [0.0, 1, 5, 100, 1e4],
        10.0 ** np.arange(-6, 6),
        10.0 ** np.arange(-4, 7),
        [-20.0, -3, 0, 3, 20],
    )
)
X, MU, THETA, H = np.array(GRID).T[:, :, None]
NO_EPS = 1e-300  # they add eps to mu, theta and theta + mu inside logarithms; this takes it away in float64


def tensors(*arrays):
    return [torch.tensor(a, dtype=torch.float64) for a in arrays]


def nb(eps):
    return log_nb_positive(*tensors(X, MU, THETA), eps=eps).numpy()


def zinb(eps):
    return log_zinb_positive(*tensors(X, MU, THETA, H), eps=eps).numpy()


def lost():
    """Rounding of their sums: they subtract terms as large as lgamma(1e6)."""
    x, theta, mu = tensors(X, THETA, MU)
    logs = (theta.log(), (theta + mu).log())
    terms = [torch.lgamma(x + theta), torch.lgamma(theta), *(theta * term for term in logs), x * logs[1], x * mu.log()]
    return 4 * np.finfo(float).eps * (1 + np.abs(H) + sum(t.abs() for t in [*terms, theta, x]).numpy())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: negative_binomial.logpmf(X, MU, THETA), nb),
        (lambda: zero_inflated.logpmf(X, MU, THETA, H), zinb),
    ],
    ids=["nb", "zinb"],
)
def test_logpmf(ours, theirs):
    got, want = ours(), theirs(NO_EPS)
    assert np.all(np.abs(got - want) <= 1e-12 * np.abs(want) + lost())
    # Their default eps = 1e-8 is worth about 1e-8 (x / mu + theta / (theta + mu)) nats, and no more.
    assert np.all(np.abs(got - theirs(1e-8)) <= 1e-12 * np.abs(want) + lost() + 1.1e-8 * (2 * X / MU + 2))


@pytest.mark.parametrize("family", ["nb", "zinb"])
def test_gradient(family):
    """Their autograd in float64. digamma(x + theta) - digamma(theta) cancels where theta is large."""
    mu, theta, h = (t.requires_grad_() for t in tensors(MU, THETA, H))
    (x,) = tensors(X)
    if family == "nb":
        log_p, leaves = log_nb_positive(x, mu, theta, eps=NO_EPS), (mu, theta)
        ours = negative_binomial.gradient(X, MU, THETA)
    else:
        log_p, leaves = log_zinb_positive(x, mu, theta, h, eps=NO_EPS), (mu, theta, h)
        ours = zero_inflated.gradient(X, MU, THETA, H)
    with np.errstate(over="ignore"):
        wanted = torch.autograd.grad(log_p.sum(), leaves)
    for name, got, want in zip(ours._fields, ours, wanted, strict=True):
        want = want.numpy()
        # d/dmu is a difference of x / mu and (x + theta) / (mu + theta), d/dtheta of digammas and logs of order
        # log theta, d/dh of sigmoids of h and of log NB(0)
        left = {"mu": 1e-15 * (X / MU + 1), "theta": 1e-14 + 1e-15 * (X + THETA) / (THETA + MU), "zero_logits": lost()}
        assert np.all(np.abs(got - want) <= 1e-9 * np.abs(want) + left[name]), name
