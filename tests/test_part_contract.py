"""What every part of a model must do, whichever it is.

Shapes, a gradient for every parameter, a finite loss, save and reload, a readable repr, and no randomness but torch's
own generator. A part that is new in a mapping must be listed here with its options, or a test fails.
"""

import json
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, LATENT, NETWORK, all_cells, build, spec, table

from scanpy_scvi.modules import ModelSpec, Part
from scanpy_scvi.modules.decoders import DECODERS, Decoder
from scanpy_scvi.modules.encoders import ENCODERS, Encoder
from scanpy_scvi.modules.growth import Growth, grow
from scanpy_scvi.modules.latent_order import LatentOrder
from scanpy_scvi.modules.libraries import LIBRARIES, Library
from scanpy_scvi.modules.likelihoods import LIKELIHOODS, Likelihood
from scanpy_scvi.modules.penalties import PENALTIES, Axes, Penalty, Seen
from scanpy_scvi.modules.priors import PRIORS, Prior
from scanpy_scvi.training import seeded

ROLES = {
    "encoder": (ENCODERS, Encoder),
    "library": (LIBRARIES, Library),
    "decoder": (DECODERS, Decoder),
    "likelihood": (LIKELIHOODS, Likelihood),
    "prior": (PRIORS, Prior),
}
MLP = {**NETWORK, "dropout_rate": 0.1}
PARTS = [
    ("encoder", Part("mlp", MLP)),
    ("encoder", Part("mlp", {**MLP, "encode_covariates": True})),
    ("encoder", Part("mlp", {**MLP, "encode_covariates": True, "inject_covariates": False, "n_layers": 3})),
    ("encoder", Part("mlp", {**MLP, "norm": "layer", "n_layers": 1})),
    ("encoder", Part("mlp", {**MLP, "encode_covariates": True, "scale_input": True})),
    ("encoder", Part("mlp", {**MLP, "norm": "none", "dropout_rate": 0.0})),
    ("encoder", Part("mlp", {**MLP, "deterministic": True, "input_total": 1e3, "corruption": 0.3, "l2": 0.5})),
    ("encoder", Part("linear", {"n_latent": 3})),
    ("encoder", Part("linear", {"n_latent": 3, "deterministic": True, "encode_covariates": True, "input_total": 1e3})),
    ("encoder", Part("recurrent", {"n_latent": 3, "activation": "sigmoid", "l2": 1.0})),
    ("encoder", Part("recurrent", {"n_latent": 3, "n_steps": 3, "encode_covariates": True, "input_total": 1e3})),
    ("encoder", Part("linear", {"n_latent": 3, "corruption": 0.3, "l2": 2.0})),
    ("encoder", Part("free", {"n_latent": 3, "n_cells": 37})),
    ("library", Part("observed")),
    ("library", Part("size_factor")),
    ("library", Part("latent", LATENT)),
    ("library", Part("latent", {**LATENT, "norm": "layer", "n_layers": 2})),
    ("library", Part("latent", {**LATENT, "encode_covariates": True})),
    ("decoder", Part("mlp", NETWORK)),
    ("decoder", Part("mlp", {**NETWORK, "l2": 1.0})),
    ("decoder", Part("mlp", {**NETWORK, "inject_covariates": False, "norm": "none"})),
    ("decoder", Part("mlp", {**NETWORK, "n_layers": 1, "norm": "layer", "dropout_rate": 0.2, "n_hidden": 5})),
    ("decoder", Part("linear", {"n_latent": 3})),
    ("decoder", Part("linear", {"n_latent": 3, "loadings_sd": 0.3})),
    ("decoder", Part("masked_linear", {"n_latent": 3, "n_links": 30})),
    ("decoder", Part("masked_linear", {"n_latent": 3, "n_links": 40, "n_free": 1, "keep_signs": True})),
    ("decoder", Part("masked_linear", {"n_latent": 3, "n_links": 0, "n_free": 3, "latent_dropout": 0.4})),
    ("likelihood", Part("gaussian")),
    ("likelihood", Part("gaussian", {"noise": "shared", "total": 100.0, "observed_only": True})),
    ("likelihood", Part("gaussian", {"sd": 0.5})),
    ("likelihood", Part("poisson")),
    ("likelihood", Part("student_t")),
    ("likelihood", Part("student_t", {"total": 100.0, "least_sd": 0.05})),
    *(
        ("likelihood", Part(name, {"dispersion": dispersion}))
        for name in ("nb", "zinb")
        for dispersion in ("gene", "gene-batch", "gene-label", "gene-cell")
    ),
    ("prior", Part("flat")),
    ("prior", Part("normal")),
    ("prior", Part("mixture", {"n_latent": 3, "n_components": 1})),
    (
        "prior",
        Part("mixture", {"n_latent": 3, "n_components": 4, "concentration": 2.0, "radius": 1.0, "sd_width": 0.5}),
    ),
    ("prior", Part("sparse_shift", {"n_latent": 3, "n_perturbations": 2, "n_links": 2})),
    ("prior", Part("sparse_shift", {"n_latent": 3, "n_perturbations": 1, "n_links": 1, "pricing": "linear"})),
    ("prior", Part("sparse_shift", {"n_latent": 3, "n_perturbations": 2, "n_links": 3, "gates": "gumbel"})),
    ("prior", Part("sparse_shift", {"n_latent": 3, "n_perturbations": 2, "n_links": 2, "gates": "open"})),
]
PENALIZED = [
    Part("mmd"),
    Part("mmd", {"weight": 3.0, "n_widths": 4}),
    Part("entropy"),
    Part("tsne", {"perplexity": 5.0}),
    Part("tsne", {"perplexity": 2.0, "n_pcs": 3, "dof": 2.5, "weight": 1.0}),
]
N = 37


def name_of(value):
    return f"{value.name} {json.dumps(value.options)}" if isinstance(value, Part) else value


each_penalty = pytest.mark.parametrize("part", PENALIZED, ids=name_of)
each_part = pytest.mark.parametrize(("role", "part"), PARTS, ids=name_of)


@pytest.fixture
def cells():
    return all_cells(table(N))


def test_every_part_of_every_mapping_is_here():
    listed = {(role, part.name) for role, part in PARTS}
    assert listed == {(role, name) for role, (mapping, _) in ROLES.items() for name in mapping}


@pytest.mark.parametrize("role", ROLES)
def test_parts_are_finished_classes_of_their_role(role):
    mapping, base = ROLES[role]
    for part in mapping.values():
        assert part.__bases__ == (base,)  # finished classes are not subclassed
        assert not part.__abstractmethods__
        assert part.__doc__


MADE_WITHOUT_MEMORY = """
import json, sys, torch
from scanpy_scvi.modules import ModelSpec
with torch.device("meta"):
    for text in json.loads(sys.stdin.read()):
        before = torch.random.get_rng_state()
        assert all(t.is_meta for t in ModelSpec.from_json(text).build().parameters())
        assert torch.equal(torch.random.get_rng_state(), before)
        if "torch._dynamo" in sys.modules or "sympy" in sys.modules:
            sys.exit(text)
"""


def test_made_without_memory_no_part_draws_numbers_or_loads_torchs_compiler():
    """That is how a stored fit is read; some functions of torch would load its compiler, which takes seconds."""
    specs = json.dumps([spec(**{role: part}).to_json() for role, part in PARTS])
    run = [sys.executable, "-c", MADE_WITHOUT_MEMORY]
    subprocess.run(run, check=True, capture_output=True, text=True, input=specs)


@each_part
@pytest.mark.parametrize("n", [N, 2])
@torch.no_grad()
def test_shapes(role, part, n):
    model = build(spec(**{role: part}))
    cells = all_cells(table(n))
    posterior = model.encode(cells)
    z = posterior.sample()
    assert posterior.mean.shape == z.shape == (n, 3)
    assert model.encoder.gives_points == (posterior.var is None)
    if posterior.var is not None:
        assert posterior.var.shape == z.shape
        assert (posterior.var > 0).all()
    log_library, kl_library = model.library(cells)
    assert log_library.shape == kl_library.shape == model.library.mean(cells).shape == (n,)
    assert (kl_library >= 0).all()
    output = model.decode(z, cells)
    assert output.params.shape == (n, DIMS.n_genes)
    assert output.hidden.shape == (n, model.decoder.n_hidden)
    rho, log_theta = model.likelihood.proportions(output), model.likelihood.log_theta(output, cells)
    torch.testing.assert_close(rho.sum(1), torch.ones(n))
    assert log_theta is None or torch.broadcast_shapes(log_theta.shape, rho.shape) == rho.shape
    assert model.likelihood.nll(output, log_library, cells).shape == (n,)
    assert model.likelihood.sample(output, log_library, cells).shape == (n, DIMS.n_genes)
    assert model.prior.kl(posterior, z, cells).shape == model.prior.log_prob(z, cells).shape == (n,)
    assert model(cells).terms().dtype == torch.float32
    assert model(cells).terms().shape == (3, n)


@each_part
@pytest.mark.parametrize("train", [True, False])
def test_finite_loss_and_a_gradient_for_every_parameter(role, part, train, cells):
    model = build(spec(**{role: part})).train(train)
    with seeded(0):
        loss = model(cells).loss()
    assert torch.isfinite(loss).all()
    loss.mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        gradient = parameter.grad.to_dense()
        assert torch.isfinite(gradient).all(), name
        alone = parameter.shape == (1,)  # the weight of the only component is one, whatever its logit
        if not train and not alone:  # batch normalisation over a minibatch takes the gradient of a bias away
            assert gradient.abs().max() > 0, name


@each_part
def test_save_and_reload_gives_the_same_bits(role, part, cells):
    """Through the spec's JSON and plain arrays, which is what is stored in an AnnData."""
    original = spec(**{role: part})
    model = build(original, seed=1)
    with seeded(0):
        model.train()(cells)  # move the running statistics
    arrays = {name: tensor.numpy().copy() for name, tensor in model.eval().state_dict().items()}
    again = build(ModelSpec.from_json(original.to_json()), seed=2)
    again.load_state_dict({name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()})
    outputs = []
    for m in (model, again):
        with seeded(3), torch.no_grad():
            outputs.append(m(cells))
    assert torch.equal(*(bound.terms() for bound in outputs))


@each_part
def test_repr_is_readable(role, part):
    mapping, _ = ROLES[role]
    text = repr(getattr(build(spec(**{role: part})), role))
    assert text.startswith(f"{mapping[part.name].__name__}(")
    assert " at 0x" not in text
    assert len(text) < 2_000


@each_part
def test_no_randomness_but_torchs_own(role, part, cells):
    """The same seed gives the same bits, in building, training mode and evaluation; other generators are left alone."""
    numpy_before, python_before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    outputs = []
    for _ in range(2):
        model = build(spec(**{role: part}), seed=5)
        with seeded(6):
            first = model.train()(cells)
            outputs.append([*first.terms(), *model.eval()(cells).terms(), *model.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert random.getstate() == python_before


@each_part
def test_counts_are_drawn_from_torchs_own_generator(role, part, cells):
    """Whole numbers without a gradient, the same for the same seed, and about their mean."""
    model = build(spec(**{role: part}))
    output, log_library = model.decode(model.encode(cells).mean, cells), model.library.mean(cells)
    draws = []
    for seed in (4, 4, 5):
        with seeded(seed):
            draws.append(model.likelihood.sample(output, log_library, cells))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].dtype == torch.float32
    assert not draws[0].requires_grad
    assert (draws[0] >= 0).all()
    assert torch.equal(draws[0], draws[0].floor())
    with seeded(6):
        totals = torch.stack([model.likelihood.sample(output, log_library, cells).sum(1) for _ in range(50)])
    expected = log_library.exp().sum().item()
    assert (0.3 if part.name == "zinb" else 0.9) < totals.mean(0).sum().item() / expected < 1.1


@each_part
@torch.no_grad()
def test_only_draws_are_random(role, part, cells):
    """In evaluation mode everything but a draw of z or of the library is a function of its input."""
    model = build(spec(**{role: part}))
    state = torch.get_rng_state()
    posterior = model.encode(cells)
    output, log_library = model.decode(posterior.mean, cells), model.library.mean(cells)
    results = [model.likelihood.nll(output, log_library, cells), model.prior.kl(posterior, posterior.mean, cells)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(
        results[0], model.likelihood.nll(model.decode(model.encode(cells).mean, cells), log_library, cells)
    )


@each_part
@torch.no_grad()
def test_a_cell_does_not_see_its_companions(role, part):
    model, data = build(spec(**{role: part})), table(N)
    rows = np.array([30, 4])

    def terms(cells):
        posterior = model.encode(cells)
        output = model.decode(posterior.mean, cells)
        nll = model.likelihood.nll(output, model.library.mean(cells), cells)
        return posterior.mean, posterior.log_prob(posterior.mean), output.params, nll, model.library(cells).kl

    for whole, few in zip(terms(all_cells(data)), terms(data.take(rows)), strict=True):
        torch.testing.assert_close(few, whole[rows], rtol=1e-4, atol=1e-5)


@each_part
@torch.no_grad()
def test_inputs_are_left_as_they_are(role, part, cells):
    model = build(spec(**{role: part}))
    before = [t.clone() for t in (cells.counts.data, cells.log_total, cells.batch, cells.continuous)]
    model(cells)
    model(replace(cells, batch=torch.zeros_like(cells.batch)))
    after = (cells.counts.data, cells.log_total, cells.batch, cells.continuous)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@each_part
@pytest.mark.parametrize("old", [DIMS, replace(DIMS, n_batches=1, n_categories=(1, 1))], ids=["several", "one batch"])
@torch.no_grad()
def test_growing_leaves_old_cells_where_they_were(role, part, old):
    """To the bit: room for new batches and categories changes nothing for cells of the others, under any covariates."""
    if part.name == "latent":
        part = Part(
            part.name, {**part.options, "prior_mean": [4.0] * old.n_batches, "prior_var": [0.1] * old.n_batches}
        )
    model_spec, n_new = spec(old, **{role: part}), 2
    model = build(model_spec)
    new = replace(old, n_batches=old.n_batches + n_new, n_categories=tuple(k + 3 for k in old.n_categories))
    shares = tuple(np.ones(k) for k in (old.n_batches, *old.n_categories))
    grown = grow(model_spec, model, Growth(old, new, shares, (np.array([3.0, 4.0]),) * n_new))
    assert grown.spec.dims == new
    outputs = []
    for m in (model, grown.model):
        cells = all_cells(table(N, old))
        posterior = m.encode(cells)
        output, log_library = m.decode(posterior.mean, cells), m.library.mean(cells)
        nll, kl = m.likelihood.nll(output, log_library, cells), m.prior.kl(posterior, posterior.mean, cells)
        with seeded(0):
            kl_library = m.library(cells).kl
        outputs.append(
            [
                posterior.mean,
                posterior.log_prob(posterior.mean),
                *output,
                m.likelihood.proportions(output),
                log_library,
                nll,
                kl,
                kl_library,
            ]
        )
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    parameters = dict(grown.model.named_parameters())
    assert all(learned.shape == parameters[name].shape for name, learned in grown.learned.items())
    new_cells = replace(cells, batch=torch.full_like(cells.batch, new.n_batches - 1))
    assert torch.isfinite(grown.model(new_cells).loss()).all()


@each_part
@torch.no_grad()
def test_renaming_the_latent_dimensions_changes_nothing_else(role, part, cells):
    """Or it is refused, by a part whose dimensions are not alike."""
    model, order = build(spec(**{role: part})), LatentOrder.of([2, 0, 1], [-1, 1, -1])
    posterior, z = model.encode(cells), torch.randn(N, 3)

    def terms(z):
        output = model.decode(z, cells)
        return (
            output.params,
            model.likelihood.nll(output, model.library.mean(cells), cells),
            model.prior.log_prob(z, cells),
        )

    before = terms(z)
    try:
        model.reorder_latent(order)
    except NotImplementedError:
        pytest.skip(f"the dimensions of the {role} {part.name} are not alike")
    renamed = model.encode(cells)
    torch.testing.assert_close(renamed.mean, posterior.mean[:, order.order] * order.sign)
    if posterior.var is not None:
        torch.testing.assert_close(renamed.var, posterior.var[:, order.order])
    for old, new in zip(before, terms(z[:, order.order] * order.sign), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)


def priced(part, seed=0):
    """A model with a penalty, in training mode; principal axes are given to it."""
    model = build(spec(penalties=(part,)), seed=seed).train()
    if model.penalties[0].n_axes:
        model.penalties[0].set_axes(Axes(torch.eye(DIMS.n_genes)[:, : model.penalties[0].n_axes], 60.0))
    return model


def test_every_penalty_of_the_mapping_is_here():
    assert {part.name for part in PENALIZED} == set(PENALTIES)
    for penalty in PENALTIES.values():
        assert penalty.__bases__ == (Penalty,)
        assert not penalty.__abstractmethods__
        assert penalty.__doc__


@each_penalty
def test_a_penalty_is_a_finite_scalar_with_a_gradient(part, cells):
    model = priced(part)
    with seeded(0):
        penalty = model(cells).penalty
    assert penalty.shape == ()
    assert penalty.dtype == torch.float32
    penalty.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in gradients)
    assert max(g.abs().max() for g in gradients) > 0


@each_penalty
def test_a_penalty_is_saved_as_text_alone(part, cells):
    """It has a spec and a readable repr, and no weights; without it the model computes the same."""
    model = priced(part)
    original = spec(penalties=(part,))
    assert ModelSpec.from_json(original.to_json()) == original
    assert not any(name.startswith("penalties") for name in model.state_dict())
    text = repr(model.penalties[0])
    assert text.startswith(f"{PENALTIES[part.name].__name__}(")
    assert "\n" not in text
    with seeded(1):
        terms = model(cells).terms()
    with seeded(1):
        assert torch.equal(build(spec()).train()(cells).terms(), terms)


@each_penalty
@torch.no_grad()
def test_a_penalty_draws_nothing_and_does_not_know_the_order_of_cells(part):
    data = table(N)
    order = np.random.default_rng(0).permutation(N)
    model = priced(part).requires_grad_(requires_grad=False)
    model.encoder.eval()
    prices = []
    for rows in (np.arange(N), order):
        cells = data.take(rows)
        posterior = model.encode(cells)
        output = model.eval().decode(posterior.mean, cells)
        state = torch.get_rng_state()
        prices.append(model.penalties[0](Seen(posterior, posterior.mean, output, cells)).item())
        assert torch.equal(torch.get_rng_state(), state)
    assert prices[0] == pytest.approx(prices[1], rel=1e-4, abs=1e-6)
