"""A fit that is killed and goes on ends with the bits of one that never stopped."""

import json
import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanpy_scvi import _replace
from scanpy_scvi.training import checkpoint as module
from scanpy_scvi.training import fit, seeded
from scanpy_scvi.training.checkpoint import Checkpoints
from scanpy_scvi.training.fit import _Fit
from scanpy_scvi.training.fit_state import Numbers

IDENTITY = {"version": "1", "training": {"rate": 0.1, "names": ["a", "b"]}, "data": {"counts": "0" * 32}}


NUMBERS = Numbers([], [], 0.0, 0, [], {}, 0, [], 0.0)


class Killed(BaseException):
    """Ends a fit as nothing that it could catch."""


@pytest.fixture(autouse=True)
def _at_every_step(monkeypatch):
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    monkeypatch.setattr(module, "REST", 0.0)


def outcome(model, result):
    """All bits of a fit."""
    state = {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
    history = np.array(result.history)
    return state, history.tobytes(), repr(result.convergence), result.validation_rows.tobytes()


def whole(model, data, config, **options):
    with seeded(5):
        return outcome(model, fit(model, data.table, config, **options))


def killed(model, data, config, folder, *, step, name="_step"):
    """Fit until the call of a method with the number `step`, counted from 1; return whether it came so far."""
    original, calls = getattr(_Fit, name), []

    def dying(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == step:
            raise Killed
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, seeded(5):
        patch.setattr(_Fit, name, dying)
        try:
            fit(model, data.table, config, checkpoints=Checkpoints(folder, IDENTITY))
        except Killed:
            return True
    return False


@pytest.mark.parametrize("step", [1, 2, 4, 5, 8, 11, 16])  # 4 steps in an epoch
def test_resumed_equals_uninterrupted(step, data, make_model, config, tmp_path):
    expected = whole(make_model(), data, config())
    assert killed(make_model(), data, config(), tmp_path, step=step)
    seen = []
    again = whole(make_model(), data, config(), checkpoints=Checkpoints(tmp_path, IDENTITY), on_epoch=seen.append)
    assert again == expected
    assert [record.epoch for record in seen] == list(range(1 + (step - 1) // 4, 5))  # what was done is not done again


def test_only_the_rest_is_done(data, make_model, config, tmp_path, monkeypatch):
    assert killed(make_model(), data, config(), tmp_path, step=11)
    steps, step = [], _Fit._step
    monkeypatch.setattr(_Fit, "_step", lambda self, *args: steps.append(1) or step(self, *args))
    whole(make_model(), data, config(), checkpoints=Checkpoints(tmp_path, IDENTITY))
    assert len(steps) == 6


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.integers(1, 9), min_size=2, max_size=4))
def test_many_interruptions_change_nothing(steps, data, make_model, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    changes = {"kl_warmup": 0.5, "early_stopping": True, "settle_dispersion": True}
    expected = whole(make_model(), data, config(**changes))
    for step in steps:
        killed(make_model(), data, config(**changes), folder, step=step)
    assert whole(make_model(), data, config(**changes), checkpoints=Checkpoints(folder, IDENTITY)) == expected


@pytest.mark.parametrize("name", ["_settle_dispersion", "_latent_variance", "_evaluate"])
def test_killed_outside_the_steps(name, data, make_model, config, tmp_path):
    settings = config(settle_dispersion=True)
    expected = whole(make_model(), data, settings)
    assert killed(make_model(), data, settings, tmp_path, step=1, name=name)
    assert whole(make_model(), data, settings, checkpoints=Checkpoints(tmp_path, IDENTITY)) == expected


@pytest.mark.parametrize("changes", [{"averaging": 0.0}, {"validation_size": 0.0}, {"keep_best": False}])
def test_with_other_settings(changes, data, make_model, config, tmp_path):
    expected = whole(make_model(), data, config(**changes))
    assert killed(make_model(), data, config(**changes), tmp_path, step=7)
    assert whole(make_model(), data, config(**changes), checkpoints=Checkpoints(tmp_path, IDENTITY)) == expected


def test_after_a_restart_at_a_lower_rate(data, make_model, config, tmp_path):
    settings = config(learning_rate=100, max_epochs=6, warmup_steps=0, max_restarts=6)
    model = make_model()
    with seeded(5):
        result = fit(model, data.table, settings)
    assert result.convergence.n_restarts
    n_steps = 0
    for n_steps in range(2, 30, 5):
        folder = tmp_path / str(n_steps)
        killed(make_model(), data, settings, folder, step=n_steps)
        again = whole(make_model(), data, settings, checkpoints=Checkpoints(folder, IDENTITY))
        assert again == outcome(model, result)


def test_several_fits_of_a_call_have_a_file_each(data, make_model, config, tmp_path):
    both = Checkpoints(tmp_path, IDENTITY)
    for seed in (0, 1):
        whole(make_model(seed), data, config(), checkpoints=both)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit-1.npz", "fit-2.npz"]
    both.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_writes_nothing(data, make_model, config, tmp_path):
    reader = Checkpoints(tmp_path, IDENTITY, writes=False)
    whole(make_model(), data, config(), checkpoints=reader)
    assert list(tmp_path.iterdir()) == []


def test_of_two_fits_that_share_a_folder_each_leaves_the_other_alone(tmp_path, monkeypatch):
    """Both began before there was a state to refuse."""
    told = []
    monkeypatch.setattr(module._logging, "warning", told.append)
    mine, others = Checkpoints(tmp_path, IDENTITY), Checkpoints(tmp_path, IDENTITY | {"version": "2"})
    own, other = (both.next_fit("x") for both in (mine, others))
    state = module.FitState([np.zeros(1)], [], [], *[np.empty(0)] * 3, NUMBERS)
    own.save_if_due(lambda: state)
    before = own.path.read_bytes()
    for _ in range(3):
        other.save_if_due(lambda: state)
    assert own.path.read_bytes() == before
    assert len(told) == 1
    assert "holds the state of another fit" in told[0]
    others.remove()
    assert own.path.read_bytes() == before
    mine.remove()
    assert list(tmp_path.iterdir()) == []
    other.save_if_due(lambda: state)  # the name is free
    others.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_is_writing_is_left(data, make_model, config, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)  # which is alive
    others = _replace.own_part_of(tmp_path / "fit-1.npz")
    others.write_bytes(b"half")
    monkeypatch.undo()
    dead = others.with_name(others.name.replace("-1.part", f"-{2**22 + 1}.part"))
    dead.write_bytes(b"half")
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    monkeypatch.setattr(module, "REST", 0.0)
    states = Checkpoints(tmp_path, IDENTITY)
    whole(make_model(), data, config(), checkpoints=states)
    assert others.read_bytes() == b"half"
    states.remove()
    assert list(tmp_path.iterdir()) == [others]


# ---- when


def test_checkpoints_come_at_intervals_and_take_a_hundredth_of_the_time(tmp_path, monkeypatch):
    now, took, written = [1000.0], 2.0, []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "INTERVAL", 60.0)
    monkeypatch.setattr(module, "REST", 100.0)

    def write(*_):
        written.append(now[0] - 1000)
        now[0] += took

    monkeypatch.setattr(module, "write_arrays", write)
    monkeypatch.setattr(module.FitState, "arrays", lambda _: {})
    state = module.FitState([], [], [], *[np.empty(0)] * 3, None)
    file = Checkpoints(tmp_path, IDENTITY).next_fit("x")
    for _ in range(500):
        now[0] += 1.0
        file.save_if_due(lambda: state)
    assert written == [60.0, 262.0, 464.0]


# ---- what is refused


@pytest.fixture
def left(data, make_model, config, tmp_path):
    """A folder with the state of a killed fit."""
    assert killed(make_model(), data, config(), tmp_path, step=6)
    return tmp_path


def test_nothing_in_it_is_pickled(left):
    with np.load(left / "fit-1.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fiuU" for name in arrays.files)
        assert json.loads(str(arrays["identity"]))["training"] == IDENTITY["training"]


@pytest.mark.parametrize("how", ["cut", "flipped", "emptied", "foreign"])
def test_a_damaged_file_is_refused(how, left, data, make_model, config):
    path = left / "fit-1.npz"
    content = path.read_bytes()
    middle = len(content) // 2
    changed = {
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "emptied": b"",
        "foreign": b"no archive " * 100,
    }
    path.write_bytes(changed[how])
    model = make_model()
    with pytest.raises(ValueError, match=r"checkpoint .*fit-1\.npz is cut short or damaged\. Delete it"):
        whole(model, data, config(), checkpoints=Checkpoints(left, IDENTITY))
    assert path.read_bytes() == changed[how]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": "2"}, '`version` is "1" there and "2" here'),
        ({"training": {"rate": 0.2, "names": ["a", "b"]}}, "`training.rate` is 0.1 there and 0.2 here"),
        ({"data": {"counts": "1" * 32}}, "`data.counts` differs"),
        ({"more": 1}, "`more` is null there and 1 here"),
    ],
)
def test_another_fit_is_refused(change, told, left, data, make_model, config):
    with pytest.raises(ValueError, match="is of another fit") as error:
        whole(make_model(), data, config(), checkpoints=Checkpoints(left, IDENTITY | change))
    assert told in str(error.value)
    assert "delete that file" in str(error.value)


def test_a_model_that_holds_something_else_is_refused(left, data, make_model, config):
    model = make_model()
    model.register_buffer("gene_set", torch.ones(2))
    with pytest.raises(ValueError, match="`start` differs"):
        whole(model, data, config(), checkpoints=Checkpoints(left, IDENTITY))


# ---- a full disk


def test_a_full_disk_does_not_end_the_fit(data, make_model, config, tmp_path, monkeypatch):
    expected = whole(make_model(), data, config())
    good, calls, told = module.write_arrays, [], []

    def full(path, arrays):
        calls.append(None)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        good(path, arrays)

    monkeypatch.setattr(module, "write_arrays", full)
    monkeypatch.setattr(module._logging, "warning", told.append)
    assert whole(make_model(), data, config(), checkpoints=Checkpoints(tmp_path, IDENTITY)) == expected
    assert "No space left on device" in told[0]
    assert "The one before it is kept; the fit goes on." in told[0]
    state = Checkpoints(tmp_path, IDENTITY)
    assert whole(make_model(), data, config(), checkpoints=state) == expected  # from the third step
