import numpy as np
import pytest

from scanpy_scvi.training.history import EpochRecord, goals, judge, recent_gain


def records(validation, train=None, kl=5.0, kl_weight=1.0):
    """Return a history with these bounds."""
    train = validation if train is None else train
    kl = np.broadcast_to(kl, len(train))
    rows = zip(train, validation, kl, strict=True)
    return [EpochRecord(i + 1, t, v, k, kl_weight, 0.01) for i, (t, v, k) in enumerate(rows)]


def verdict(history, plateau=False, variance=(1.0, 0.5), too_short=False, **options):
    return judge(
        history,
        plateau=plateau,
        too_short=too_short,
        latent_variance=np.array(variance),
        tolerance=1e-3,
        **({"n_restarts": 0, "interrupted": False} | options),
    )


RISING = np.linspace(-110, -100, 20)
FLAT = np.r_[np.linspace(-110, -100, 10), np.full(10, -100)]


def test_bounds_are_held_out_ones_where_there_are_some():
    assert goals(records([-3.0, -2.0], [-1.0, -1.0])).tolist() == [-3, -2]
    assert goals(records([np.nan, np.nan], [-1.0, -0.5])).tolist() == [-1, -0.5]


def test_recent_gain_is_relative_to_the_best_before_the_last_fifth():
    assert recent_gain(records([-120, -110, -105, -100, -90])) == pytest.approx(0.1)
    assert recent_gain(records([-120, -110, -105, -100, -101])) == 0
    assert recent_gain(records([-120])) == np.inf


def test_gains_are_relative_to_the_distance_from_an_exact_reconstruction():
    """Bounds of densities have no zero of their own: adding a constant changes no verdict."""
    for history in (FLAT, RISING, np.r_[RISING, np.full(10, -113.0)]):
        plain = verdict(records(history))
        for shift in (100.0, 104.99, 500.0):
            moved = verdict(records(history + shift), ceiling=shift)
            assert (moved.verdict, moved.n_active) == (plain.verdict, plain.n_active)
            assert moved.recent_gain == pytest.approx(plain.recent_gain)


def test_without_a_prior_dimensions_are_compared_with_the_largest():
    for unit in (1e-6, 1.0, 1e6):
        end = verdict(records(FLAT), variance=unit * np.array([3.0, 0.5, 0.02]), scale_is_set=False)
        assert (end.verdict, end.n_active) == ("converged", 2)


def test_converged():
    end = verdict(records(FLAT))
    assert (end.verdict, end.best_epoch, end.best_elbo, end.kl, end.n_active) == ("converged", 10, -100, 5, 2)
    assert "converged after 20 epochs" in end.message
    assert verdict(records(RISING), plateau=True).verdict == "converged"


def test_still_improving():
    end = verdict(records(RISING))
    assert end.verdict == "still improving"
    assert "max_epochs" in end.message


def test_a_few_steps_are_no_evidence():
    for history, variance in ((records([-100.0]), 1.0), (records(FLAT), 1.0), (records(RISING), 0.0)):
        end = verdict(history, too_short=True, variance=[variance])
        assert end.verdict == "still improving"
        assert "inf" not in end.message
        assert "max_epochs" in end.message


def test_collapsed():
    end = verdict(records(FLAT), variance=(0.0, 1e-3))
    assert (end.verdict, end.n_active) == ("KL collapsed", 0)
    assert "kl_weight" in end.message


def test_diverged_means_that_the_fit_to_its_own_cells_got_worse():
    end = verdict(records(np.r_[np.linspace(-110, -100, 10), np.linspace(-130, -300, 10)]))
    assert end.verdict == "diverged"
    assert "learning_rate" in end.message
    assert end.best_elbo == -100


def test_overfitting_is_no_divergence():
    end = verdict(records(np.linspace(-100, -120, 20), RISING), plateau=True)
    assert (end.verdict, end.best_epoch) == ("converged", 1)


def test_one_bad_epoch_is_no_divergence():
    train = FLAT.copy()
    train[-1] = -400
    assert verdict(records(FLAT, train)).verdict == "converged"


def test_a_kl_that_shrinks_while_its_weight_grows_is_no_divergence():
    # the unweighted bound falls while what is optimised rises: -nll - 0.02 kl
    nll, kl = np.linspace(100, 80, 20), np.linspace(1, 60, 20)
    end = verdict(records(-nll - kl, kl=kl, kl_weight=0.02))
    assert end.verdict != "diverged"


def test_interrupted():
    end = verdict(records(RISING), interrupted=True, n_restarts=2)
    assert (end.verdict, end.n_restarts) == ("interrupted", 2)
    assert "by hand in epoch 21" in end.message


def test_numbers_are_those_of_the_weights_that_were_kept():
    worse = np.r_[FLAT, -101.0]
    assert verdict(records(worse)).best_epoch == 10
    kept = verdict(records(worse), keep_best=False)
    assert (kept.best_epoch, kept.best_elbo) == (21, -101)
    assert verdict(records(worse), keep_best=False, interrupted=True).best_epoch == 10


def test_a_fit_is_judged_under_the_weight_that_its_kl_was_given():
    """Where the KL hardly counts, it may grow for as long as reconstructions get better."""
    nll, kl = np.r_[np.linspace(100, 80, 15), np.full(5, 80.0)], np.linspace(1, 300, 20)
    history = records(-nll - kl, kl=kl, kl_weight=1e-3)
    np.testing.assert_allclose(goals(history, 1e-3), -nll - 1e-3 * kl)
    assert verdict(history).best_epoch == 1
    weighted = verdict(history, kl_weight=1e-3)
    assert (weighted.verdict, weighted.best_epoch) == ("converged", 15)
    assert weighted.best_elbo == history[14].validation_elbo


def test_divergence_is_told_from_the_kl_of_the_same_cells():
    """That of held-out cells, under averaged weights, may be far from it where it hardly counts."""
    nll, train_kl, kl = np.linspace(100, 80, 20), np.linspace(50, 400, 20), np.linspace(50, 200, 20)
    plain = records(-nll - kl, train=-nll - train_kl, kl=kl, kl_weight=1e-3)
    told = [record._replace(train_kl=k) for record, k in zip(plain, train_kl, strict=True)]
    assert verdict(told, kl_weight=1e-3).verdict == "still improving"


def test_a_bound_that_nears_an_exact_reconstruction_is_no_divergence():
    """The less is left, the more each epoch gains of it: what lies below the best was on its way there."""
    rising = -60 * 0.9 ** np.arange(30)
    assert verdict(records(np.full(30, -50.0), rising)).verdict != "diverged"
    fallen = np.r_[rising[:-4], 2 * rising[-8:-4]]  # in two thirds of the last fifth
    assert verdict(records(np.full(30, -50.0), fallen)).verdict == "diverged"


def test_a_lucky_epoch_among_ruined_ones_is_no_recovery():
    """Each epoch is compared with the best until then, so a late best one excuses none of those before it."""
    for late in (27, 28, 29):
        train = np.r_[np.linspace(-110, -100, 20), np.full(10, -300.0)]
        train[late] = -99
        assert verdict(records(np.full(30, -110.0), train)).verdict == "diverged"
