"""Messages look like scanpy's and follow scanpy's verbosity."""

import logging
import subprocess
import sys

import pytest
import scanpy as sc

from scanpy_scvi import _logging, _progress

SPEAKERS = [_logging.error, _logging.warning, _logging.info, _logging.hint, _logging.debug]


@pytest.fixture(autouse=True)
def _restore_settings():
    before, file = sc.settings.verbosity, sc.settings.logfile
    yield
    sc.settings.verbosity = before
    if sc.settings.logpath is not None:
        sc.settings.logfile.close()
        for handler in sc.settings._root_logger.handlers:
            handler.close()  # scanpy itself forgets to
    sc.settings.logfile = file


@pytest.mark.parametrize("verbosity", range(5))
def test_each_verbosity_shows_its_levels(verbosity, capsys):
    sc.settings.verbosity = verbosity
    for speak in SPEAKERS:
        speak(f"from {speak.__name__}")
    shown = capsys.readouterr().err.splitlines()
    assert [line.split("from ")[1] for line in shown] == ["error", "warning", "info", "hint", "debug"][: verbosity + 1]


@pytest.mark.parametrize("verbosity", range(5))
def test_same_text_as_scanpy(verbosity, capsys):
    sc.settings.verbosity = verbosity
    sc.settings.logfile = sys.stderr

    def talk(log):
        start = log.info("computing neighbors")
        log.hint("try this")
        log.warning("100% odd")
        log.debug("detail")
        log.info("    finished", time=start, deep="added to `.uns['x']`")
        log.info("    took {time_passed} in all", time=start)

    talk(sc.logging)
    theirs = capsys.readouterr().err
    talk(_logging)
    assert capsys.readouterr().err == theirs


def test_closing_line_is_shown_by_default_and_not_at_zero(capsys):
    sc.settings.verbosity = 1
    start = _logging.info("hidden")
    _logging.closing_line("scvi converged", added=[".obsm['X_scvi']", ".uns['scvi']"], time=start)
    assert capsys.readouterr().err == "scvi converged: added `.obsm['X_scvi']`, `.uns['scvi']` (0:00:00)\n"
    sc.settings.verbosity = 0
    _logging.closing_line("scvi converged")
    assert capsys.readouterr().err == ""


def test_goes_to_scanpys_log_file(tmp_path, capsys):
    sc.settings.verbosity = 2
    sc.settings.logfile = tmp_path / "run.log"
    _logging.info("written")
    assert (tmp_path / "run.log").read_text() == "written\n"
    assert capsys.readouterr().err == ""


def test_standard_logging_reaches_and_silences_it(capsys):
    sc.settings.verbosity = 2
    logger = logging.getLogger("scanpy_scvi")
    logger.info("from %s", "elsewhere")
    assert capsys.readouterr().err == "from elsewhere\n"
    before = logger.level
    try:
        logger.setLevel(logging.ERROR)
        _logging.warning("silenced")
    finally:
        logger.setLevel(before)
    assert capsys.readouterr().err == ""


def test_works_without_scanpy():
    code = (
        "import sys; from scanpy_scvi import _logging as log, _progress\n"
        "log.warning('shown'); log.info('hidden'); assert not {'scanpy', 'torch', 'tqdm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "WARNING: shown\n"


@pytest.mark.parametrize(
    ("progress", "verbosity", "shown"),
    [(False, 4, False), (True, 0, False), (None, 0, False), (True, 1, True), (None, 1, False)],
)
def test_progress_policy(progress, verbosity, shown):
    sc.settings.verbosity = verbosity  # stderr is no terminal here
    assert _progress.show_progress(progress) is shown


def test_progress_line_shows_epoch_and_both_bounds(capsys):
    with _progress.ProgressLine(10, enabled=True) as line:
        line.update(1, -410.25, -412.75)
        _logging.warning("in between")
        line.update(5, -400.25, -402.75)
    text = capsys.readouterr().err
    assert "1/10" in text
    assert "WARNING: in between\n" in text
    last = text.strip().split("\r")[-1]
    assert last.startswith("epoch 5/5 |")  # stopped early: what was reached is everything
    assert last.endswith("ELBO train -400.2, held-out -402.8")


def test_progress_line_without_held_out_cells_and_after_a_failure(capsys):
    def fail():
        with _progress.ProgressLine(10, enabled=True) as line:
            line.update(3, -410.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert last.startswith("epoch 3/10")
    assert "held-out" not in last


def test_disabled_progress_line_prints_nothing(capsys):
    with _progress.ProgressLine(10, enabled=False) as line:
        line.update(1, -410.0, -412.0)
    line.close()
    assert capsys.readouterr() == ("", "")
