import numpy as np
import pytest
import torch

from scanpy_scvi.numerics.wide_rows import add_rows, round_rows


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    design = np.eye(3, dtype=np.float32)[rng.integers(3, size=17)]
    design[:, 2] = rng.normal(size=17)
    offsets, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 41), 41))
    return rng.normal(size=(17, 41)).astype(np.float32), design, offsets, bias


def test_add_rows(problem):
    product, design, offsets, bias = problem
    half = torch.from_numpy(product).bfloat16()
    got = add_rows(half.view(torch.uint16).numpy(), bias, design, offsets)
    np.testing.assert_allclose(got, half.float().numpy() + bias + design @ offsets, rtol=1e-5, atol=1e-6)


def test_rounding_is_that_of_torch_and_sums_are_of_the_unrounded(problem):
    slope, design, _, _ = problem
    tie = np.uint32([0x3F808000, 0x3F818000, 0x7F7FFFFF]).view(np.float32)  # ties to even, and over to infinity
    slope[0, :6] = [np.inf, -np.inf, 0.0, *tie]
    with np.errstate(invalid="ignore", over="ignore"):
        bits, d_bias, d_offsets = round_rows(slope, design)
        expected = slope.sum(0), design.T @ slope
    assert torch.equal(torch.from_numpy(bits).view(torch.bfloat16), torch.from_numpy(slope).bfloat16())
    np.testing.assert_allclose(d_bias[6:], expected[0][6:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(d_offsets[:, 6:], expected[1][:, 6:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("payload", [0x7F800001, 0xFFFFFFFF, 0x7FC00000])
def test_nan_stays_nan(payload, problem):
    slope, design, _, _ = problem
    slope[3, 5] = np.uint32(payload).view(np.float32)
    bits, d_bias, _ = round_rows(slope, design)
    assert torch.isnan(torch.from_numpy(bits).view(torch.bfloat16)[3, 5])
    assert np.isnan(d_bias[5])


def test_arrays_to_fill_are_filled(problem):
    slope, design, offsets, bias = problem
    bits, out = np.empty(slope.shape, np.uint16), np.empty(slope.shape, np.float32)
    assert round_rows(slope, design, bits)[0] is bits
    assert add_rows(bits, bias, design, offsets, out) is out
