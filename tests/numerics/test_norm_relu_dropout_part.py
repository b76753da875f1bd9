"""Parts of a minibatch, their sums added up, are normalised as the whole is."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from together import Sums, side_by_side

from scanpy_scvi.numerics.norm_relu_dropout import norm_relu_dropout, norm_relu_dropout_gradient
from scanpy_scvi.numerics.norm_relu_dropout_part import (
    Rows,
    norm_relu_dropout_part,
    norm_relu_dropout_part_gradient,
)

OPTIONS = {"eps": 1e-3, "momentum": 0.1, "rate": 0.3, "seed": 4_000_000_000}


def problem(n, width, *, level=0.0):
    rng = np.random.default_rng([n, width])
    product = (level + rng.normal(size=(n, width))).astype(np.float32)
    design = (rng.random((n, 2)) < 0.5).astype(np.float32)
    vectors = rng.normal(size=(7, width)).astype(np.float32)
    bias, offsets, gamma, beta, slope_seed = vectors[0], vectors[1:3], vectors[3], vectors[4], vectors[5]
    slope = (rng.normal(size=(n, width)) + slope_seed).astype(np.float32)
    return product, design, bias, offsets, gamma, beta, slope


def whole(product, design, bias, offsets, gamma, beta, slope):
    running = np.zeros_like(bias), np.ones_like(bias)
    normed = norm_relu_dropout(product.copy(), bias, design, offsets, gamma, beta, *running, **OPTIONS)
    return normed, norm_relu_dropout_gradient(slope, normed, design, gamma, rate=OPTIONS["rate"]), running


def part(bounds, n, add, product, design, bias, offsets, gamma, beta, slope):
    own, rows = slice(*bounds), Rows(bounds[0], n, add)
    running = np.zeros_like(bias), np.ones_like(bias)
    normed = norm_relu_dropout_part(
        rows, product[own].copy(), bias, design[own], offsets, gamma, beta, *running, **OPTIONS
    )
    gradients = norm_relu_dropout_part_gradient(slope[own], normed, design[own], gamma, rows, rate=OPTIONS["rate"])
    return normed, gradients, running


def in_parts(edges, arrays):
    n, sums = len(arrays[0]), Sums(len(edges) - 1)
    return side_by_side([partial(part, each, n, sums.adder(i), *arrays) for i, each in enumerate(pairwise(edges))])


@given(n=st.integers(2, 60), width=st.integers(1, 9), cuts=st.lists(st.integers(0, 60), min_size=1, max_size=3))
def test_parts_make_the_whole(n, width, cuts):
    arrays = problem(n, width)
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    normed, gradients, running = whole(*arrays)
    found = in_parts(edges, arrays)
    close = {"rtol": 2e-4, "atol": 2e-5}
    np.testing.assert_allclose(np.concatenate([f[0].out for f in found]), normed.out, **close)
    for one in found:
        np.testing.assert_allclose(one[2][0], running[0], **close)
        np.testing.assert_allclose(one[2][1], running[1], **close)
        np.testing.assert_array_equal(one[2], found[0][2])
    scale = max(1.0, float(np.abs(normed.inverse_std).max()))
    np.testing.assert_allclose(np.concatenate([f[1][0] for f in found]), gradients[0], rtol=1e-3, atol=2e-4 * scale)
    np.testing.assert_allclose(sum(f[1][1] for f in found), gradients[1], rtol=1e-3, atol=2e-3 * scale)
    for k in (2, 3):
        np.testing.assert_allclose(sum(f[1][k] for f in found), gradients[k], rtol=1e-4, atol=1e-4)


def test_the_masks_are_those_of_the_whole():
    arrays = problem(50, 40)
    normed = whole(*arrays)[0]
    found = np.concatenate([f[0].out for f in in_parts([0, 20, 50], arrays)])
    np.testing.assert_array_equal(found == 0, normed.out == 0)
    dropped = np.mean(normed.out[normed.standard * arrays[4] + arrays[5] > 0.1] == 0)
    assert abs(dropped - OPTIONS["rate"]) < 0.05


def test_a_large_mean_does_not_drown_the_variance():
    arrays = problem(64, 3, level=1e4)
    found = in_parts([0, 30, 64], arrays)[0][0].inverse_std
    a = (arrays[0] + arrays[2]).astype(np.float64) + arrays[1] @ arrays[3].astype(np.float64)
    np.testing.assert_allclose(found, 1 / np.sqrt(a.var(0) + OPTIONS["eps"]), rtol=1e-3)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_in_one_part_is_seen_in_all(broken):
    arrays = problem(10, 2)
    arrays[0][1, 0] = broken
    outs = [one[0].out for one in in_parts([0, 5, 10], arrays)]
    assert all(np.isnan(out[:, 0]).any() for out in outs)
    assert all(np.isfinite(out[:, 1]).all() for out in outs)
