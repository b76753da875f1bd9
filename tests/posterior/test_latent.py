import numpy as np
import pytest
import torch
from modules.small_models import all_cells, build, spec, table

from scanpy_scvi.posterior import latent, latent_moments

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return build(spec())


def test_moments_are_those_of_the_encoder(model):
    data = table()
    moments = latent_moments(model, data, device=CPU)
    with torch.no_grad():
        posterior = model.encode(all_cells(data))
    np.testing.assert_array_equal(moments.mean, posterior.mean)
    np.testing.assert_array_equal(moments.var, posterior.var)
    assert moments.mean.dtype == moments.var.dtype == np.float32
    assert moments.mean.shape == moments.var.shape == (37, 3)
    assert (moments.var > 0).all()


def test_deterministic_even_from_training_mode(model):
    data, state = table(), torch.get_rng_state()
    first = latent_moments(model.train(), data, device=CPU)
    second = latent_moments(model.train(), data, device=CPU)
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.var, second.var)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("chunk", [2, 5, 36])
def test_chunks_do_not_matter(model, monkeypatch, chunk):
    data = table()
    whole = latent_moments(model, data, device=CPU)
    monkeypatch.setattr(latent, "CHUNK", chunk)
    parts = latent_moments(model, data, device=CPU)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.var, whole.var, rtol=1e-5)


def test_one_cell_is_enough(model):
    assert latent_moments(model, table(1), device=CPU).mean.shape == (1, 3)
