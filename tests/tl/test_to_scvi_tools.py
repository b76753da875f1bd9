"""What is written for scvi-tools; that scvi-tools opens it is shown in `tests/comparison`.

Read here again, the file is a model of scvi-tools' own form: its numbers must be those of the fit.
"""

import pickletools
import zipfile

import anndata as ad
import numpy as np
import pytest
import torch
from store.scvi_tools.files import NAMES, cells, path_of

import scanpy_scvi as sv
from scanpy_scvi.posterior import ExpressionRequest, normalized_expression
from scanpy_scvi.store import load
from scanpy_scvi.store.scvi_tools.archive import read_saved

COVARIATES = {"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["age"]}
FITS = {
    "default": {},
    "no batch": {"batch_key": None},
    "covariates": COVARIATES,
    "three layers": {"n_layers": 3, **COVARIATES},
    "one layer": {"n_layers": 1, **COVARIATES},
    "no norm": {"norm": "none", **COVARIATES},
    "layer norm, first layer": {"norm": "layer", "inject_covariates": False, **COVARIATES},
    "latent library": {"library": "latent", "likelihood": "zinb", **COVARIATES},
    "gene-cell": {"likelihood": "zinb", "dispersion": "gene-cell", **COVARIATES},
    "gene-batch": {"dispersion": "gene-batch"},
    "gene-label": {"dispersion": "gene-label", "labels_key": "label"},
    "poisson": {"likelihood": "poisson", **COVARIATES},
    "blind encoder": {"encode_covariates": False, **COVARIATES},
}
SAFE = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage", "torch LongStorage"}
NUMPY = {"numpy ndarray", "numpy dtype", "_codecs encode", "__builtin__ bytes"}


def expression(adata, key, batch):
    fitted = load(adata, key)
    weights = np.eye(fitted.spec.dims.n_batches)[batch]
    request = ExpressionRequest(batch_weights=weights)
    chunks = normalized_expression(fitted.model, fitted.read(adata), request, genes=None, device=torch.device("cpu"))
    return np.concatenate([chunk for _, chunk in chunks])


@pytest.mark.parametrize("options", FITS.values(), ids=FITS)
def test_a_fit_written_and_read_is_the_same(adata, quick_fit, tmp_path, options):
    quick_fit(adata, normalized=False, **{"batch_key": "batch", **options})
    sv.tl.to_scvi_tools(adata, tmp_path)
    sv.tl.from_scvi_tools(adata, tmp_path, key_added="again", normalized=False)
    again = load(adata, "again").spec
    assert again.decoder.options.get("output_covariates", False) is False  # it is their architecture
    scale = 1e-5 * adata.obsm["X_scvi"].std()
    np.testing.assert_allclose(adata.obsm["X_again"], adata.obsm["X_scvi"], rtol=1e-5, atol=scale)
    np.testing.assert_allclose(adata.obsm["again_latent_var"], adata.obsm["scvi_latent_var"], rtol=1e-5)
    for batch in range(again.dims.n_batches):
        here, there = expression(adata, "scvi", batch), expression(adata, "again", batch)
        np.testing.assert_allclose(there, here, rtol=1e-5)
    for key in ("scvi", "again"):
        sv.tl.log_likelihood(adata, key=key, key_added=f"ll_{key}", n_samples=5)
    np.testing.assert_allclose(adata.obs["ll_again"], adata.obs["ll_scvi"], rtol=1e-4)


def test_covariates_of_the_output_layer_take_one_unit_for_each_category(adata, quick_fit, tmp_path):
    widths = {}
    for name, options in {"plain": {"batch_key": None}, "batch": {}, "all": COVARIATES}.items():
        quick_fit(adata, **{"batch_key": "batch", **options})
        sv.tl.to_scvi_tools(adata, tmp_path / name)
        widths[name] = len(
            read_saved(tmp_path / name / "model.pt").state["decoder.px_decoder.fc_layers.Layer 0.0.bias"]
        )
    assert widths == {"plain": 16, "batch": 16 + 2, "all": 16 + 2 + 3 + 2}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_scvi_tools_read_and_written_has_the_same_weights(name, tmp_path):
    adata = cells()
    sv.tl.from_scvi_tools(adata, path_of(name))
    sv.tl.to_scvi_tools(adata, tmp_path)
    theirs, ours = read_saved(path_of(name)), read_saved(tmp_path / "model.pt")
    assert set(theirs.state) == set(ours.state)
    assert theirs.var_names == ours.var_names
    unused = {"plain": ["px_r_dec", "l_encoder"], "history": ["px_r_dec", "l_encoder", "px_drop"], "full": ["px_r_dec"]}
    n_equal = 0
    for weight, value in theirs.state.items():
        assert ours.state[weight].dtype == value.dtype
        if any(part in weight for part in unused[name]):
            assert ours.state[weight].shape == value.shape
        else:
            np.testing.assert_array_equal(ours.state[weight], value, err_msg=weight)
            n_equal += 1
    assert n_equal >= 16


def test_the_pickle_names_nothing_but_containers_arrays_and_tensors(fitted, tmp_path):
    sv.tl.to_scvi_tools(fitted, tmp_path)
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        found = {arg for op, arg, _ in pickletools.genops(archive.read(name)) if op.name == "GLOBAL"}
    reconstruct = {name for name in found if name.startswith("numpy") and name.endswith("multiarray _reconstruct")}
    assert len(reconstruct) == 1
    assert found - reconstruct <= SAFE | NUMPY


def test_what_setup_anndata_noted(adata, quick_fit, tmp_path):
    """Categories that are numbers stay numbers: scvi-tools tells 1 from "1"."""
    adata.obs["lane"] = [(3, 1, 20)[i % 3] for i in range(adata.n_obs)]
    adata.layers["counts"] = adata.X.copy()
    quick_fit(adata, layer="counts", categorical_covariate_keys=["lane"], continuous_covariate_keys=["age"])
    sv.tl.to_scvi_tools(adata, tmp_path)
    attributes = torch.load(tmp_path / "model.pt", weights_only=False)["attr_dict"]
    registry = attributes["registry_"]
    assert registry["model_name"] == "SCVI"
    assert registry["setup_args"] == {
        "layer": "counts",
        "batch_key": "batch",
        "labels_key": None,
        "size_factor_key": None,
        "categorical_covariate_keys": ["lane"],
        "continuous_covariate_keys": ["age"],
    }
    lanes = registry["field_registries"]["extra_categorical_covs"]["state_registry"]["mappings"]["lane"]
    assert lanes.dtype.kind == "i"
    assert lanes.tolist() == [int(name) for name in adata.uns["scvi"]["categories"]["categorical"]["0"]]
    held_out = adata.obs_names[attributes["validation_indices_"]]
    assert set(held_out) == set(adata.uns["scvi"]["validation_names"])
    assert len(attributes["train_indices_"]) + len(held_out) == adata.n_obs


def test_cells_beside_the_model(adata, quick_fit, tmp_path):
    adata.var["highly_variable"] = np.arange(adata.n_vars) % 2 == 0
    quick_fit(adata)
    sv.tl.to_scvi_tools(adata, tmp_path / "new" / "folder", prefix="a_", save_anndata=True)
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["a_adata.h5ad", "a_model.pt"]
    beside = ad.read_h5ad(tmp_path / "new" / "folder" / "a_adata.h5ad")
    assert list(beside.var_names) == list(adata.uns["scvi"]["var_names"])
    np.testing.assert_array_equal(beside.obsm["X_scvi"], adata.obsm["X_scvi"])


def test_files_are_replaced_only_when_asked(fitted, tmp_path):
    sv.tl.to_scvi_tools(fitted, tmp_path)
    before = (tmp_path / "model.pt").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        sv.tl.to_scvi_tools(fitted, tmp_path)
    sv.tl.to_scvi_tools(fitted, tmp_path, overwrite=True)
    assert (tmp_path / "model.pt").read_bytes() == before  # the same fit, the same file


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"norm": "layer"}, "layer normalisation would mix.*inject_covariates=False"),
        ({"size_factor_key": "size"}, "softplus"),
    ],
)
def test_what_scvi_tools_cannot_express_is_refused_before_writing(adata, quick_fit, tmp_path, options, reason):
    adata.obs["size"] = np.linspace(0.5, 2, adata.n_obs)
    quick_fit(adata, **options)
    with pytest.raises(ValueError, match=f"cannot be written for scvi-tools.*{reason}"):
        sv.tl.to_scvi_tools(adata, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_layer_normalisation_without_covariates(adata, quick_fit, tmp_path):
    quick_fit(adata, batch_key=None, norm="layer")
    sv.tl.to_scvi_tools(adata, tmp_path)
    sv.tl.from_scvi_tools(adata, tmp_path, key_added="again")
    np.testing.assert_allclose(adata.obsm["X_again"], adata.obsm["X_scvi"], rtol=1e-5, atol=1e-6)


def test_no_fit(adata, tmp_path):
    with pytest.raises(KeyError, match="holds no fitted model"):
        sv.tl.to_scvi_tools(adata, tmp_path)


def test_cells_without_counts_or_genes_are_not_written_beside_the_model(adata, quick_fit, tmp_path):
    quick_fit(adata, batch_key="batch", normalized=False)
    query = adata[:, 3:].copy()
    sv.tl.map_query(query, adata, progress=False)
    sv.tl.slim(adata)
    for lacking, reason in ((query, "lacks 3 of the model's genes"), (adata, "needs the counts")):
        with pytest.raises(ValueError, match=reason):
            sv.tl.to_scvi_tools(lacking, tmp_path / "model", save_anndata=True)
        assert not (tmp_path / "model").exists()
        sv.tl.to_scvi_tools(lacking, tmp_path / "alone", overwrite=True)


def test_a_query_brought_to_the_depth_of_its_reference_is_refused(adata, quick_fit, tmp_path):
    """The reference's own model can be written; a grown one only while its input is not scaled."""
    is_new = (adata.obs["batch"] == "batch_1").to_numpy()
    reference, query = adata[~is_new].copy(), adata[is_new].copy()
    quick_fit(reference)
    sv.tl.map_query(query, reference, batch_key="batch", update_weights=False, progress=False)
    scale = query.uns["scvi"]["state"]["encoder.log_input_scale"]
    assert scale[0] == 0 != scale[1]
    with pytest.raises(ValueError, match="at the depth of the reference"):
        sv.tl.to_scvi_tools(query, tmp_path)
    assert list(tmp_path.iterdir()) == []
    scale[1] = 0
    sv.tl.to_scvi_tools(query, tmp_path)
    sv.tl.from_scvi_tools(query, tmp_path, key_added="back")
    np.testing.assert_allclose(query.uns["back"]["depth"].shape, (1 + query.obsm["X_back"].shape[1],))
