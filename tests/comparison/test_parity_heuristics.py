# ruff: noqa: E402
"""What is derived from the data before training: epochs, the prior of the library, and the preset `"scvi-tools"`."""

import inspect
import warnings

import numpy as np
import pytest
from torch import nn

scvi = pytest.importorskip("scvi")

from _weights import Variant, options, our_names
from scvi.model._utils import _init_library_size, get_max_epochs_heuristic

import scanpy_scvi as sv
from scanpy_scvi.modules import Dimensions, Part
from scanpy_scvi.store import ColumnKeys, read
from scanpy_scvi.tl._assemble import Architecture, library_prior, model_spec
from scanpy_scvi.tl._presets import resolve_options
from scanpy_scvi.training.config import default_max_epochs

BATCH = ColumnKeys(batch_key="batch")


@pytest.fixture
def adata(real_counts):
    """60 cells of the real counts, 20 a batch."""
    batch = real_counts.obs["batch"]
    return real_counts[np.concatenate([np.flatnonzero(batch == b)[:20] for b in batch.cat.categories])].copy()


def their_model(adata):
    """An unfitted SCVI with its defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
        return scvi.model.SCVI(adata)


@pytest.mark.parametrize("n_cells", [1, 100, 20_000, 20_001, 20_050, 33_333, 100_000, 9_000_000])
def test_epochs_of_the_preset(n_cells):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs warns of a single epoch
        theirs = get_max_epochs_heuristic(n_cells)
    assert default_max_epochs(n_cells, preset="scvi-tools") == theirs


def test_library_prior(adata):
    model = their_model(adata)
    mean, var = _init_library_size(model.adata_manager, 3)
    table = read(adata, BATCH, layer=None, mask_var=None).table
    ours = library_prior(table.log_total, table.batch)
    np.testing.assert_allclose(ours[0], mean[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1], var[0], rtol=1e-5)


def test_an_empty_cell_counts_as_one_molecule_there_and_is_an_error_here(adata):
    """They mask log 0 and fill in 0, the log of one count, which pulls the whole batch's prior down."""
    model = their_model(adata)
    before = _init_library_size(model.adata_manager, 3)[0][0]
    empty = int(np.flatnonzero(adata.obs["batch"] == "dropseq_3cl")[0])
    keep = np.ones(adata.n_obs)
    keep[empty] = 0
    totals = np.log(adata.X.sum(1).A1[(adata.obs["batch"] == "dropseq_3cl").to_numpy()])
    adata.X = adata.X.multiply(keep[:, None]).tocsr().astype(np.float32)
    model = their_model(adata)
    with pytest.warns(UserWarning, match="empty cells"):
        after = _init_library_size(model.adata_manager, 3)[0][0]
    np.testing.assert_allclose(after[2], (totals.sum() - totals[0]) / 20, rtol=1e-6)
    assert after[2] < before[2] - 0.2
    with pytest.raises(ValueError, match=rf"1 of 60 cells.*'{adata.obs_names[empty]}'"):
        read(adata, BATCH, layer=None, mask_var=None)


def test_a_batch_of_one_cell_has_variance_zero_there_and_a_floor_here(adata):
    adata = adata[: 2 * 20 + 1].copy()
    model = their_model(adata)
    assert _init_library_size(model.adata_manager, 3)[1][0].min() == 0  # an infinite KL
    table = read(adata, BATCH, layer=None, mask_var=None).table
    var = library_prior(table.log_total, table.batch)[1]
    assert min(var) == 1e-4
    assert np.isfinite(np.log(var)).all()


def test_preset_has_their_architecture_and_optimiser(adata):
    model = their_model(adata)
    theirs = model.module
    defaults = {name: p.default for name, p in inspect.signature(sv.tl.scvi).parameters.items()}
    preset = resolve_options(sv.tl.scvi, defaults | {"preset": "scvi-tools"})
    architecture = Architecture(**{name: preset[name] for name in Architecture.__dataclass_fields__})
    dims = Dimensions(n_genes=adata.n_vars, n_batches=3)
    ours = model_spec(architecture, dims, Part("observed")).build()
    variant = Variant(theirs.gene_likelihood, theirs.n_layers, dispersion=theirs.dispersion)
    ours.load_state_dict(
        our_names(theirs.state_dict(), options(variant), dims)
    )  # strict: names and shapes are the same
    for a, b in ((theirs.z_encoder, ours.encoder), (theirs.decoder, ours.decoder)):
        for kind, name in ((nn.Dropout, "p"), (nn.BatchNorm1d, "momentum"), (nn.BatchNorm1d, "eps")):
            assert settings(a, kind, name) == settings(b, kind, name)
    plan = {name: p.default for name, p in inspect.signature(scvi.train.TrainingPlan).parameters.items()}
    for name, value in {
        "learning_rate": plan["lr"],
        "adam_eps": plan["eps"],
        "weight_decay": plan["weight_decay"],
    }.items():
        assert preset[name] == value, name
    train = inspect.signature(scvi.model.SCVI.train).parameters
    assert preset["batch_size"] == train["batch_size"].default
    assert preset["early_stopping"] == train["early_stopping"].default


def settings(module, kind, name):
    """One setting of all layers of a kind, but for those that do nothing."""
    return [value for m in module.modules() if isinstance(m, kind) if (value := getattr(m, name))]
