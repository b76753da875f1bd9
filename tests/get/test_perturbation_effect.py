import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK
from scipy import sparse
from screens import QUICK as QUICK_SCREEN
from screens import screen
from svae_tables import svae_entry

import scanpy_scvi as sv
from scanpy_scvi.store.load import load

LABELS = ["A", "B", "A+B", "C+control", "D"]


@pytest.fixture(scope="module")
def made():
    """A plain fit with tables of perturbations A, B, C and D made up; do not change it."""
    adata = sv.datasets.simulate_perturbations(
        n_perturbations=5, n_latent=3, n_genes=60, cells_per_perturbation=30, control_fraction=0.3
    )
    names = dict(zip(sorted(set(adata.obs["perturbation"]) - {"control"}), LABELS, strict=True))
    adata.obs["perturbation"] = pd.Categorical([names.get(name, "control") for name in adata.obs["perturbation"]])
    sv.tl.scvi(adata, batch_key="batch", key_added="svae", **QUICK)
    tables = svae_entry(["A", "B", "C", "D"], n_latent=3)
    shift = np.array([[1.5, 0, 0], [0, -1, 0.8], [0, 0, 2], [0, 0, 0]], np.float32)
    tables["effects"][:] = shift
    tables["targets"]["shift"] = np.where(shift != 0, shift, 0.3).ravel()
    tables["targets"]["standard_error"] = 0.1
    adata.uns["svae"]["params"] |= tables.pop("params")
    adata.uns["svae"] |= {name: tables[name] for name in ("perturbations", "effects", "targets", "rule")}
    adata.obsm["X_svae_basal"] = adata.obsm["X_svae"].copy()
    return adata


@pytest.fixture
def fitted(made):
    return made.copy()


def proportions(adata, rows, shift):
    """Mean of rho x 10,000 over cells at their basal states plus a shift, or several shifts, decoded at once."""
    found = load(adata, "svae")
    cells, basal = found.read(adata).take(rows), adata.obsm["X_svae_basal"][rows]

    def mean(shift):
        z = torch.from_numpy(basal + np.asarray(shift, np.float32))
        return 1e4 * found.model.likelihood.proportions(found.model.decode(z, cells)).double().mean(0).numpy()

    with torch.no_grad():
        return mean(shift) if np.ndim(shift) == 1 else np.array([mean(s) for s in shift])


def counted(adata, mask):
    x = adata.X[mask].toarray().astype(float)
    return (1e4 * x / x.sum(1, keepdims=True)).mean(0)


def test_prediction_is_that_of_the_decoder_and_observation_that_of_the_counts(fitted):
    table = sv.get.perturbation_effect(fitted, "A")
    label = fitted.obs["perturbation"].to_numpy()
    control = np.flatnonzero(label == "control")
    before, after = (proportions(fitted, control, shift) for shift in ([0, 0, 0], [1.5, 0, 0]))
    np.testing.assert_allclose(table["predicted_reference"], before, rtol=1e-4)
    np.testing.assert_allclose(table["predicted_mean"], after, rtol=1e-4)
    np.testing.assert_allclose(table["predicted"], np.log2((after + 0.1) / (before + 0.1)), atol=1e-4)
    mean, reference = counted(fitted, label == "A"), counted(fitted, label == "control")
    np.testing.assert_allclose(table["observed_mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(table["observed_reference"], reference, rtol=1e-4)
    np.testing.assert_allclose(table["observed"], np.log2((mean + 0.1) / (reference + 0.1)), atol=1e-4)
    assert table.index.to_list() == fitted.var_names.to_list()
    assert (table["observed_error"] > 0).all()
    assert (table["n_cells"] == (label == "A").sum()).all()
    assert (table["n_reference"] == len(control)).all()
    assert table["predicted"].abs().max() > 0.05


def test_interval_is_the_spread_of_what_normal_shifts_decode_to(fitted):
    """The variance of the fold change over N(shift, 0.1^2) of both open latents, by Gauss-Hermite quadrature."""
    table = sv.get.perturbation_effect(fitted, "B")
    control = np.flatnonzero(fitted.obs["perturbation"] == "control")
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    shifts = [[0, -1 + 0.1 * x, 0.8 + 0.1 * y] for x in nodes for y in nodes]
    weight = np.outer(weights, weights).ravel()[:, None] / weights.sum() ** 2
    fold = np.log2(proportions(fitted, control, shifts) + 0.1)
    sd = np.sqrt((weight * fold**2).sum(0) - (weight * fold).sum(0) ** 2)
    np.testing.assert_allclose((table["high"] - table["low"]) / 2, 1.96 * sd, rtol=0.05, atol=0.002)
    np.testing.assert_allclose((table["low"] + table["high"]) / 2, table["predicted"], atol=1e-6)


def test_error_of_what_was_observed_is_that_of_cells_drawn_anew(fitted):
    table = sv.get.perturbation_effect(fitted, "A")
    label, x = fitted.obs["perturbation"].to_numpy(), fitted.X.toarray().astype(float)
    x = 1e4 * x / x.sum(1, keepdims=True)
    rng, sides = np.random.default_rng(0), [x[label == "A"], x[label == "control"]]
    means = [np.stack([side[rng.integers(0, len(side), len(side))].mean(0) for _ in range(400)]) for side in sides]
    bootstrap = np.log2((means[0] + 0.1) / (means[1] + 0.1)).std(0)
    np.testing.assert_allclose(table["observed_error"], bootstrap, rtol=0.3)
    assert np.median(table["observed_error"] / bootstrap) == pytest.approx(1, abs=0.05)


def test_a_gene_without_counts_is_not_sure(fitted):
    empty = fitted.copy()
    empty.X = sparse.csr_matrix(empty.X.toarray() * (np.arange(fitted.n_vars) != 3))
    table = sv.get.perturbation_effect(empty, "A", pseudocount=0.01)
    assert table["observed"].iloc[3] == 0
    one_count = 1e4 / (empty.X[(empty.obs["perturbation"] == "A").to_numpy()].sum())
    assert table["observed_error"].iloc[3] > one_count / 0.01


def test_a_pair_has_the_sum_of_both_shifts_in_either_order(fitted):
    table = sv.get.perturbation_effect(fitted, "B+A")
    control = np.flatnonzero(fitted.obs["perturbation"] == "control")
    np.testing.assert_allclose(table["predicted_mean"], proportions(fitted, control, [1.5, -1, 0.8]), rtol=1e-4)
    assert table["n_cells"].iloc[0] == (fitted.obs["perturbation"] == "A+B").sum() > 0
    pd.testing.assert_frame_equal(table, sv.get.perturbation_effect(fitted, "A+B"))


def test_a_pair_that_no_cell_has_is_predicted_alone(fitted):
    table = sv.get.perturbation_effect(fitted, "A+D")
    assert table["observed"].isna().all()
    assert (table["n_cells"] == 0).all()
    np.testing.assert_allclose(table["predicted"], sv.get.perturbation_effect(fitted, "A")["predicted"])


def test_with_control_in_its_label_a_perturbation_is_alone(fitted):
    table = sv.get.perturbation_effect(fitted, "C")
    np.testing.assert_allclose(
        table["observed_mean"], counted(fitted, (fitted.obs["perturbation"] == "C+control").to_numpy()), rtol=1e-4
    )


def test_without_open_gates_nothing_is_predicted(fitted):
    table = sv.get.perturbation_effect(fitted, "D")
    assert (table[["predicted", "low", "high"]] == 0).all(axis=None)
    assert table["observed"].abs().max() > 0


def test_genes_are_those_asked_for_in_their_order(fitted):
    table = sv.get.perturbation_effect(fitted, "A", genes=["gene_7", "gene_2"])
    assert table.index.to_list() == ["gene_7", "gene_2"]
    pd.testing.assert_frame_equal(table, sv.get.perturbation_effect(fitted, "A").loc[["gene_7", "gene_2"]])
    assert sv.get.perturbation_effect(fitted, "A", genes="gene_7").shape[0] == 1


def test_fewer_decoded_cells_are_a_sample_that_the_seed_decides(fitted):
    def ask(**options):
        return sv.get.perturbation_effect(fitted, "A", n_decoded=20, **options)

    pd.testing.assert_frame_equal(ask(), ask(random_state=0))
    assert not ask()["predicted"].equals(ask(random_state=1)["predicted"])
    assert ask()["observed"].equals(ask(random_state=1)["observed"])
    full = sv.get.perturbation_effect(fitted, "A")["predicted"]
    assert np.corrcoef(ask()["predicted"], full)[0, 1] > 0.95


def test_nothing_is_changed_and_random_state_is_given_back(fitted):
    before, keys = np.random.get_state()[1].copy(), set(fitted.uns["svae"])  # noqa: NPY002
    seed = torch.get_rng_state()
    sv.get.perturbation_effect(fitted, "A", n_decoded=20)
    assert torch.equal(torch.get_rng_state(), seed)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert set(fitted.uns["svae"]) == keys


def test_without_control_all_cells_are_decoded_and_all_others_counted(fitted):
    fitted.uns["svae"]["params"]["control"] = ""
    label = fitted.obs["perturbation"].to_numpy()
    fitted = fitted[~np.isin(label, ["control", "C+control"])].copy()
    label = fitted.obs["perturbation"].to_numpy()
    table = sv.get.perturbation_effect(fitted, "A")
    everything = np.arange(fitted.n_obs)
    np.testing.assert_allclose(table["predicted_reference"], proportions(fitted, everything, [0, 0, 0]), rtol=1e-4)
    np.testing.assert_allclose(table["observed_reference"], counted(fitted, label != "A"), rtol=1e-4)
    assert table["n_reference"].iloc[0] == (label != "A").sum()


def test_reads_counts_in_parts(fitted, monkeypatch):
    whole = sv.get.perturbation_effect(fitted, "A")
    monkeypatch.setattr("scanpy_scvi.get._perturbation_effect.CHUNK", 7)
    pd.testing.assert_frame_equal(sv.get.perturbation_effect(fitted, "A"), whole, rtol=1e-12)


def test_works_on_a_reloaded_file_and_without_counts(fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "fit.h5ad")
    back = ad.read_h5ad(tmp_path / "fit.h5ad")
    table = sv.get.perturbation_effect(fitted, "A")
    pd.testing.assert_frame_equal(sv.get.perturbation_effect(back, "A"), table)
    sv.tl.slim(back, key="svae")
    slim = sv.get.perturbation_effect(back, "A")
    np.testing.assert_allclose(slim["predicted"], table["predicted"], atol=1e-5)
    assert slim["observed"].isna().all()


def test_what_cannot_be_asked_is_said(fitted):
    with pytest.raises(KeyError, match="no perturbation 'KLF1', but 'A', 'B', 'C', 'D'"):
        sv.get.perturbation_effect(fitted, "KLF1")
    with pytest.raises(KeyError, match="no perturbation 'KLF1'"):
        sv.get.perturbation_effect(fitted, "A+KLF1")
    with pytest.raises(ValueError, match="is the control"):
        sv.get.perturbation_effect(fitted, "control")
    with pytest.raises(KeyError, match="'KLF1' are not modelled"):
        sv.get.perturbation_effect(fitted, "A", genes=["KLF1"])
    with pytest.raises(ValueError, match="n_decoded"):
        sv.get.perturbation_effect(fitted, "A", n_decoded=0)
    with pytest.raises(ValueError, match="pseudocount"):
        sv.get.perturbation_effect(fitted, "A", pseudocount=0)
    del fitted.obsm["X_svae_basal"]
    with pytest.raises(KeyError, match="no 'X_svae_basal'"):
        sv.get.perturbation_effect(fitted, "A")


@pytest.fixture(scope="module")
def screened():
    """A fit of a simulated screen; do not change it."""
    adata = screen()
    sv.tl.svae(adata, "perturbation", control="control", batch_key="batch", **QUICK_SCREEN | {"max_epochs": 40})
    return adata


def test_a_fit_predicts_what_was_counted(screened):
    table = screened.uns["svae"]["perturbations"]
    names = table.index[(table["n_targets"] > 0) & (table["n_cells"] > 30)]
    tables = [sv.get.perturbation_effect(screened, name) for name in names]
    r = [t["predicted"].corr(t["observed"]) for t in tables]
    assert len(names) > 3
    assert np.median(r) > 0.8
    for name, t in zip(names, tables, strict=True):
        assert (t["n_cells"] == table.loc[name, "n_cells"]).all()


def test_an_appended_perturbation_is_predicted(screened):
    name = screened.uns["svae"]["perturbations"]["effect"].idxmax()
    seen = screened[screened.obs["perturbation"] != name].copy()
    sv.tl.svae(seen, "perturbation", control="control", batch_key="batch", **QUICK_SCREEN | {"max_epochs": 40})
    other = screened.copy()
    other.obs = other.obs.rename(columns={"perturbation": "knockout"})
    sv.tl.svae_transfer(other, seen, perturbation_key="knockout", key_added="later")
    assert name in sv.get.perturbations(other, "later").obs_names
    table = sv.get.perturbation_effect(other, name, key="later")
    assert table["predicted"].corr(table["observed"]) > 0.7
    assert (table["n_cells"] == (other.obs["knockout"] == name).sum()).all()


def test_a_fit_to_a_table_of_perturbations_is_asked_alike(screened):
    label = screened.obs["perturbation"].to_numpy()
    table = pd.get_dummies(screened.obs["perturbation"]).drop(columns="control").astype(int)
    adata = screened.copy()
    del adata.obs["perturbation"], adata.uns["svae"]
    adata.obsm["guides"] = table
    sv.tl.svae(adata, "guides", key_added="of_table", **QUICK_SCREEN)
    space = sv.get.perturbations(adata, "of_table")
    assert sorted(space.obs_names) == sorted(table)
    assert space.uns["perturbation_key"] in adata.obs
    name = space.obs_names[0]
    effect = sv.get.perturbation_effect(adata, name, key="of_table")
    assert (effect["n_cells"] == (label == name).sum()).all()
    assert (effect["n_reference"] == (label == "control").sum()).all()
    np.testing.assert_allclose(effect["observed_reference"], counted(adata, label == "control"), rtol=1e-4)


@pytest.mark.real_data
def test_known_fold_changes_are_observed(real_data):
    """Log2 fold changes of knock-outs that were computed from the counts by other means (Papalexi et al. 2021)."""
    adata = real_data("papalexi_eccite")
    chosen = ["control", "IFNGR1", "STAT1", "SMAD4", "CD86"]
    adata = adata[(adata.obs["guide_fraction"] >= 0.8) & adata.obs["perturbation"].isin(chosen)].copy()
    sv.tl.svae(adata, "perturbation", control="control", batch_key="batch", **QUICK_SCREEN | {"max_epochs": 4})
    for name, genes in (
        ("IFNGR1", {"PSMB9": -1.35, "STAT1": -1.01, "UBE2L6": -0.96}),
        ("STAT1", {"PSMB9": -1.60, "STAT1": -2.31, "UBE2L6": -1.64}),
        ("SMAD4", {"FN1": -3.15}),
    ):
        table = sv.get.perturbation_effect(adata, name, genes=list(genes))
        np.testing.assert_allclose(table["observed"], list(genes.values()), atol=0.06)
