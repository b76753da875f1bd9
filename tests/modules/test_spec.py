import json

import pytest
import torch
from modules.small_models import DIMS, LATENT, build, spec

from scanpy_scvi.modules import ModelSpec, Part


def test_json_gives_back_an_equal_spec():
    original = spec(library=Part("latent", LATENT), likelihood=Part("zinb", {"dispersion": "gene-batch"}))
    back = ModelSpec.from_json(original.to_json())
    assert back == original
    assert back.to_json() == original.to_json()
    assert json.loads(original.to_json())["likelihood"] == {"name": "zinb", "options": {"dispersion": "gene-batch"}}


def test_specs_differ_where_an_option_does():
    assert spec() != spec(likelihood=Part("nb", {"dispersion": "gene-batch"}))
    assert spec() != spec(prior=Part("normal", {"x": 1}))


def test_build_takes_its_weights_from_torch_alone():
    a, b, c = build(spec(), seed=1), build(spec(), seed=1), build(spec(), seed=2)
    same = [torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)]
    assert all(same)
    assert not torch.equal(a.encoder.mean.weight, c.encoder.mean.weight)


def test_unknown_part_and_unknown_option_are_errors():
    with pytest.raises(KeyError, match="vamp"):
        spec(prior=Part("vamp")).build()
    with pytest.raises(TypeError, match="temperature"):
        spec(prior=Part("normal", {"temperature": 2})).build()


def test_repr_is_one_that_a_reader_can_use():
    assert "Part(name='nb'" in repr(spec())
    assert "n_genes=23" in repr(spec())
    assert ModelSpec.from_json(spec().to_json()).dims == DIMS
