"""Files of scvi-tools: what is read of them, and what is refused, with the reason."""

import os
import re
import time
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store.scvi_tools.files import NAMES, cells, changed, content_of, init, path_of, registry

from scanpy_scvi.store.scvi_tools import archive
from scanpy_scvi.store.scvi_tools.archive import read_saved
from scanpy_scvi.store.scvi_tools.read import find_model, read_model
from scanpy_scvi.store.scvi_tools.registry import read_setup

LAYER = "z_encoder.encoder.fc_layers.Layer 0.0.weight"


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_those_that_torch_reads(name):
    saved, content = read_saved(path_of(name)), content_of(name)
    state = {k: v for k, v in content["model_state_dict"].items() if k != "pyro_param_store"}
    assert set(saved.state) == set(state)
    for weight, tensor in state.items():
        assert saved.state[weight].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(saved.state[weight], tensor)
    assert saved.var_names == tuple(content["var_names"])


def test_what_is_read_of_a_model_with_everything():
    foreign = read_model(path_of("full"))
    setup, spec = foreign.setup, foreign.spec
    assert setup.version == "1.4.2"
    assert setup.layer == "counts"
    assert setup.columns.batch_key == "batch"
    assert setup.columns.labels_key == "label"
    assert setup.columns.categorical_covariate_keys == ("donor", "lane")
    assert setup.columns.continuous_covariate_keys == ("age",)
    assert setup.categories.categorical == (("x", "y", "z"), ("1", "3", "20"))  # in the order of the codes
    assert (spec.dims.n_genes, spec.dims.n_batches, spec.dims.n_continuous) == (24, 3, 1)
    assert spec.encoder.options["encode_covariates"] is True
    assert spec.library.name == "latent"
    assert spec.library.options["prior_mean"] == pytest.approx(foreign.model.library.prior_mean.tolist())
    assert spec.likelihood.options == {"dispersion": "gene-batch"}
    assert foreign.var_names == tuple(cells().var_names)
    assert foreign.history == []
    assert not foreign.model.training


def test_a_covariate_with_one_category_has_no_weights_and_is_left_out(tmp_path):
    def change(content):
        state = registry(content)["field_registries"]["extra_categorical_covs"]["state_registry"]
        state["mappings"]["donor"] = np.array(["x"], object)

    setup = read_setup(read_saved(changed(tmp_path, change)).attributes["registry_"])
    assert setup.columns.categorical_covariate_keys == ("lane",)
    assert setup.categories.categorical == (("1", "3", "20"),)


def test_networks_may_be_normalised_in_different_ways():
    spec = read_model(path_of("history")).spec
    assert (spec.encoder.options["norm"], spec.decoder.options["norm"]) == ("layer", "batch")


def test_the_history_is_what_pandas_reads():
    records, curves = read_model(path_of("history")).history, content_of("history")["attr_dict"]["history_"]
    assert [r.epoch for r in records] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose([r.train_elbo for r in records], -curves["elbo_train"]["elbo_train"].astype(float))
    held_out = curves["elbo_validation"]["elbo_validation"]
    assert 0 < len(held_out) < 5
    for epoch, value in held_out.items():
        assert records[epoch].validation_elbo == pytest.approx(-float(value))
    assert sum(np.isnan(r.validation_elbo) for r in records) == 5 - len(held_out)


def set_init(group, **values):
    def change(content):
        target = init(content)["kwargs"]["kwargs"] if group == "kwargs" else init(content)["non_kwargs"]
        target.update(values)

    return change


def set_registry(**values):
    return lambda content: registry(content).update(values)


def set_args(**values):
    return lambda content: registry(content)["setup_args"].update(values)


def set_weight(name, tensor):
    return lambda content: content["model_state_dict"].update({name: tensor})


def without(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def no_non_kwargs(content):
    init(content).clear()
    init(content).update(n_hidden=8, use_cuda=False)


CANNOT = [
    (set_init("non_kwargs", latent_distribution="ln"), "latent_distribution=ln cannot be expressed.*softmax"),
    (set_init("non_kwargs", gene_likelihood="normal"), "gene_likelihood=normal cannot be read.*'zinb'"),
    (set_init("kwargs", var_activation=torch.nn.functional.softplus), "var_activation=.*softplus.*exponential"),
    (set_init("kwargs", batch_representation="embedding"), "batch_representation=embedding.*one-hot"),
    (set_init("kwargs", log_variational=False), "log_variational=False"),
    (set_init("kwargs", extra_encoder_kwargs={"bias": False}), "extra_encoder_kwargs"),
    (set_init("kwargs", use_layer_norm="both"), "encoder has batch and layer normalisation"),
    (set_init("kwargs", novelty=3), "option 'novelty' is not known"),
    (set_init("non_kwargs", n_hidden=0), "n_hidden=0"),
    (set_init("non_kwargs", n_hidden="8"), "n_hidden=8"),
    (set_init("non_kwargs", dropout_rate=float("nan")), "dropout_rate=nan"),
    (set_init("non_kwargs", dispersion="cell"), "dispersion=cell.*'gene-batch'"),
    (no_non_kwargs, "older than 0.15"),
    (set_registry(model_name="SCANVI"), "the model is 'SCANVI', but only 'SCVI'"),
    (set_registry(model_name="TOTALVI"), "the model is 'TOTALVI'"),
    (set_registry(model_name=None), "of no named class"),
    (set_registry(setup_method_name="setup_mudata"), "not set up with `setup_anndata`"),
    (set_args(size_factor_key="size"), "softplus"),
    (set_args(batch_key=3), "batch_key is not a name"),
    (set_args(categorical_covariate_keys=["donor", "absent"]), "categories of 'absent'"),
    (set_registry(setup_args="text"), "setup_args is not what was expected"),
]


@pytest.mark.parametrize(("change", "reason"), CANNOT, ids=[reason[:40] for _, reason in CANNOT])
def test_what_cannot_be_expressed_is_named(tmp_path, change, reason):
    with pytest.raises(ValueError, match=reason):
        read_model(changed(tmp_path, change))


def nothing(content):
    return ["something else"]


def duplicate_genes(content):
    content["var_names"][1] = content["var_names"][0]


def twice_a_category(content):
    registry(content)["field_registries"]["batch"]["state_registry"]["categorical_mapping"] = np.array(["a", "a", "b"])


FALSE = [
    (set_weight(LAYER, torch.zeros(6, 3)), r"shape \(6, 3\), but its options ask for \(6, 34\)"),
    (set_weight(LAYER, torch.zeros(1).expand(10**6, 10**6)), "as many values"),
    (set_weight(LAYER, torch.full((6, 34), torch.nan)), "NaN or infinite"),
    (set_weight(LAYER, [[1.0]]), "a tensor"),
    (set_weight(LAYER, torch.zeros(6, 34).to_sparse()), "a tensor"),
    (set_weight(LAYER, torch.zeros(6, 34, dtype=torch.complex64)), "a tensor of numbers"),
    (set_weight("library_log_vars", torch.zeros(1, 3)), "not positive"),
    (set_weight("unheard_of", torch.zeros(1)), "not those of its options: 'unheard_of'"),
    (without("model_state_dict", LAYER), "not those of its options"),
    (without("model_state_dict"), "it lacks model_state_dict"),
    (without("attr_dict"), "it lacks attr_dict"),
    (without("attr_dict", "init_params_"), "init_params_ is not what was expected"),
    (without("attr_dict", "registry_"), "registry_ is not what was expected"),
    (without("attr_dict", "registry_", "setup_args"), "setup_args"),
    (without("attr_dict", "registry_", "field_registries"), "field_registries"),
    (set_init("non_kwargs", n_layers=10**9), "claims 1000000000 layers"),
    (set_init("non_kwargs", n_hidden=10**9), "but its options ask for"),
    (set_init("non_kwargs", n_latent=10**9), "but its options ask for"),
    (duplicate_genes, "not different from each other"),
    (twice_a_category, "different names were expected"),
    (nothing, "the content is not what was expected"),
]


@pytest.mark.parametrize(("change", "reason"), FALSE, ids=[reason[:40] for _, reason in FALSE])
def test_false_claims_are_refused_at_once(tmp_path, change, reason):
    path = changed(tmp_path, change)
    start = time.process_time()
    with pytest.raises(ValueError, match=reason):
        read_model(path)
    assert time.process_time() - start < 5


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize("place", ["beside", "within", "weight", "option"])
def test_a_malicious_file_runs_nothing(tmp_path, monkeypatch, place):
    """Where it has no effect on the model it is passed over; elsewhere it is refused."""
    monkeypatch.chdir(tmp_path)

    def change(content):
        {
            "beside": content,
            "within": content["attr_dict"],
            "weight": content["model_state_dict"],
            "option": init(content)["non_kwargs"],
        }[place]["n_hidden" if place == "option" else "evil"] = Malicious()

    path = changed(tmp_path, change)
    if place in ("beside", "within"):
        assert read_model(path).spec.dims.n_genes == 24
    else:
        with pytest.raises(ValueError, match="cannot be read"):
            read_model(path)
    assert not (tmp_path / "owned").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "owned").exists()


def rewritten(tmp_path, change, compression=zipfile.ZIP_STORED):
    """Write the archive anew, entry by entry."""
    path = tmp_path / "rewritten.pt"
    with zipfile.ZipFile(path_of("plain")) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name, data in change({name: old.read(name) for name in old.namelist()}).items():
            new.writestr(name, data)
    return path


def test_an_archive_written_by_others_is_read(tmp_path):
    saved = read_saved(rewritten(tmp_path, lambda entries: entries))
    np.testing.assert_array_equal(saved.state["px_r"], read_saved(path_of("plain")).state["px_r"])


def test_an_archive_that_expands_is_refused_unread(tmp_path):
    bomb = rewritten(tmp_path, lambda entries: {**entries, "more": bytes(10**8)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10**6
    with pytest.raises(ValueError, match="compressed"):
        read_saved(bomb)


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    """A central directory may name one stretch of the file many times."""
    path = rewritten(tmp_path, lambda entries: entries)
    with zipfile.ZipFile(path, "a") as file:
        entry = file.getinfo(next(name for name in file.namelist() if name.endswith("data.pkl")))
        file.filelist += [entry] * 100
        file._didModify = True
    with pytest.raises(ValueError, match="larger than the file"):
        read_saved(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entries: {}, "has 0 pickles"),
        (lambda entries: {**entries, "other/data.pkl": b"."}, "has 2 pickles"),
        (lambda entries: {k: v for k, v in entries.items() if not k.endswith("data/0")}, "tensor '0' is missing"),
        (lambda entries: {k: b"" if "/data/" in k else v for k, v in entries.items()}, "as many values"),
        (lambda entries: {k: b"x" if k.endswith(".pkl") else v for k, v in entries.items()}, "cannot be read"),
    ],
)
def test_archives_with_something_amiss(tmp_path, change, reason):
    with pytest.raises(ValueError, match=reason):
        read_saved(rewritten(tmp_path, change))


def test_no_archive_at_all(tmp_path):
    path = tmp_path / "model.pt"
    for data in (b"", b"text", b"\x80\x02}."):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"not a file of `torch\.save`"):
            read_saved(path)


def test_tensors_that_share_storage_do_not_add_up_beyond_the_file(tmp_path):
    shared = torch.zeros(5000)

    def change(content):
        content["model_state_dict"].update({f"copy{i}": shared for i in range(50)})

    with pytest.raises(ValueError, match="tensors claim to be larger"):
        read_saved(changed(tmp_path, change))


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_refused_or_read(tmp_path, data):
    whole = bytearray(path_of("plain").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.pt"
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))]))
    try:
        read_model(path)
    except ValueError as error:
        assert re.match(".*(cannot be read|not a file of).*", str(error))  # noqa: PT017


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_pickles_in_whole_archives_are_refused_or_read(tmp_path, data):
    def change(entries):
        name = next(name for name in entries if name.endswith("data.pkl"))
        pickle = bytearray(entries[name])
        for _ in range(data.draw(st.integers(1, 8))):
            pickle[data.draw(st.integers(0, len(pickle) - 1))] = data.draw(st.integers(0, 255))
        return {**entries, name: bytes(pickle)}

    try:
        read_model(rewritten(tmp_path, change))
    except ValueError as error:
        assert "cannot be read" in str(error)  # noqa: PT017


def test_a_pickle_beyond_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(archive, "LARGEST_PICKLE", 100)
    with pytest.raises(ValueError, match="of at most"):
        read_saved(path_of("plain"))


def test_the_file_is_found(tmp_path):
    assert find_model(path_of("full"), "") == path_of("full")
    assert find_model(path_of("full").parent, "full_") == path_of("full")
    with pytest.raises(FileNotFoundError, match=r"Pass the folder that `SCVI\.save` wrote"):
        find_model(tmp_path, "")
