"""Differential expression against scvi-tools, both given the same draws of proportions."""

import warnings

import numpy as np
import pytest

pytest.importorskip("scvi")

from scanpy_scvi.posterior.comparison import PEER_SHARE, ComparisonOptions, compare_draws
from scanpy_scvi.posterior.effects import PairedDraws, expected_fdr, log_odds

N, GENES = 400, 60


@pytest.fixture(scope="module")
def draws():
    """Proportions of two groups with genes that differ, genes that do not, and genes without counts."""
    rng = np.random.default_rng(0)
    means = np.exp(rng.normal(-5, 2, GENES))
    change = np.resize([0, 0, 0, 4, -1], GENES)
    pair = [means * 2 ** (s * change / 2) * rng.gamma(9, 1 / 9, (N, GENES)) for s in (1, -1)]
    return [(p / p.sum(1, keepdims=True)).astype(np.float32) for p in pair]


def pairs(draws):
    return PairedDraws.one_to_one(*(np.ascontiguousarray(d.T) for d in draws))


@pytest.fixture(scope="module")
def peer(draws):
    """`get_bayes_factors` on these draws, in an AnnData of ten cells of which half are in each group."""
    import anndata as ad
    from scvi.data import AnnDataManager
    from scvi.data.fields import CategoricalObsField, LayerField
    from scvi.model.base._differential import DifferentialComputation

    counts = np.random.default_rng(1).poisson(np.where(np.arange(GENES) < 12, 0.0, 4.0), (10, GENES)).astype(np.float32)
    adata = ad.AnnData(counts)
    adata.obs["batch"] = "one"
    manager = AnnDataManager(
        [LayerField("X", None, is_count_data=True), CategoricalObsField("batch", "batch")],
        setup_method_args={"model_name": "none", "setup_args": {}},
    )
    manager.register_fields(adata)
    group = np.arange(10) < 5

    def scales(_, indices, **options):
        return draws[0 if indices[0] < 5 else 1]

    computation = DifferentialComputation(scales, None, manager)
    means = counts[group].mean(0), counts[~group].mean(0)

    def run(**options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return computation.get_bayes_factors(group, ~group, n_samples_overall=N, use_permutation=False, **options)

    return run, means


@pytest.mark.parametrize("ways", ["three", "two"])
@pytest.mark.parametrize("delta", [0.25, 1.0])
@pytest.mark.parametrize("fixed", [None, 1e-4])
def test_change(draws, peer, ways, delta, fixed):
    run, means = peer
    theirs = run(mode="change", delta=delta, test_mode=ways, pseudocounts=fixed)
    options = ComparisonOptions(delta=delta, ways=ways, pseudocount=fixed, reported_with=PEER_SHARE)
    ours = compare_draws(pairs(draws), means, options)
    np.testing.assert_allclose(ours.pseudocount, theirs["pseudocounts"], rtol=1e-6)
    np.testing.assert_array_equal(ours.differs, theirs["proba_de"])
    np.testing.assert_allclose(log_odds(ours.differs), theirs["bayes_factor"], rtol=1e-6)
    for name in ("mean", "median", "std"):
        np.testing.assert_allclose(getattr(ours.effects, name), theirs[f"lfc_{name}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.effects.scale1, theirs["scale1"], rtol=1e-5)
    np.testing.assert_allclose(ours.effects.scale2, theirs["scale2"], rtol=1e-5)


def test_called_genes(draws, peer):
    import pandas as pd
    from scvi.model.base._de_core import _fdr_de_prediction

    run, means = peer
    theirs = pd.DataFrame(run(mode="change", delta=0.25)).sort_values("proba_de", ascending=False, kind="stable")
    for target in (0.02, 0.1, 0.2):
        called = _fdr_de_prediction(theirs["proba_de"], fdr=target).sort_index()
        ours = expected_fdr(compare_draws(pairs(draws), means, ComparisonOptions(delta=0.25)).differs) <= target
        np.testing.assert_array_equal(ours, called.to_numpy(bool))
        assert 0 < ours.sum() < GENES


def test_vanilla(draws, peer):
    run, means = peer
    theirs = run(mode="vanilla")
    ours = compare_draws(pairs(draws), means, ComparisonOptions(mode="vanilla"))
    np.testing.assert_allclose(ours.differs, theirs["proba_m1"], rtol=1e-12)
    np.testing.assert_allclose(log_odds(ours.differs), theirs["bayes_factor"], rtol=1e-6)


def test_delta_by_mixture(draws, peer):
    """Their mixture has no seed and stops where it likes, so one of a few of theirs must be ours."""
    run, means = peer
    theirs = [run(mode="change", delta=None)["delta"] for _ in range(8)]
    ours = compare_draws(pairs(draws), means, ComparisonOptions(delta=None)).delta
    assert min(abs(d / ours - 1) for d in theirs) < 0.01
