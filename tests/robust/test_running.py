"""Two runs in one folder, runs that are stopped from outside, folders that vanish and places that cannot be written."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from seqloom.app import compare as compare_module
from seqloom.app.compare import compare
from seqloom.app.fit import fit
from seqloom.app.fitted import load
from seqloom.cli import main
from seqloom.core.errors import CheckpointError, ConfigError, DataError
from seqloom.core.lock import alone
from seqloom.core.protocols import Silent
from seqloom.training import checkpoint

MODEL = ("model.safetensors", "config.json", "vocabulary.json", "run.json", "metrics.json")


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    """Until a training has made so many steps."""
    path = folder / "metrics.jsonl"
    while process.poll() is None and not (path.exists() and path.read_text().count('"kind": "step"') >= step):
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


def _fit(log, folder, steps):
    return ("fit", log, "--model", "gru", "--budget", f"{steps}steps", "--out", folder)


def test_a_second_fit_is_refused_and_sigterm_saves_the_first(log, tmp_path, begun, capsys):
    first = begun(*_fit(log, tmp_path / "m", 60))
    wait_for_step(tmp_path / "m", 3, first)
    assert main([str(word) for word in (*_fit(log, tmp_path / "m", 60), "--resume")]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'm'} is in use by another process; wait for it to end, or choose another place" in told
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 143
    words = first.communicate()[1]
    assert "stopped at step" in words
    assert "--resume" in words
    assert (tmp_path / "m" / "checkpoint.safetensors").is_file()
    assert main([str(word) for word in (*_fit(log, tmp_path / "m", 60), "--resume")]) == 0
    assert main([str(word) for word in _fit(log, tmp_path / "whole", 60)]) == 0
    assert all((tmp_path / "m" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in MODEL)


@pytest.mark.slow
def test_a_lock_dies_with_its_process(log, tmp_path, begun):
    first = begun(*_fit(log, tmp_path / "m", 5000))
    wait_for_step(tmp_path / "m", 2, first)
    first.kill()
    first.communicate()
    assert (tmp_path / "m" / ".lock").exists()
    fit(log, "gru", budget="5steps", out=tmp_path / "m")
    assert not (tmp_path / "m" / ".lock").exists()


def test_a_second_comparison_is_refused(log, tmp_path):
    with alone(tmp_path / "c"), pytest.raises(ConfigError, match=r"c is in use by another process"):
        compare(log, "ngram", out=tmp_path / "c")
    compare(log, "ngram", out=tmp_path / "c")


class _Remover(Silent):
    """Removes the folder of a run in the middle of it."""

    def __init__(self, folder: Path, at: int) -> None:
        self.folder, self.left = folder, at

    def advance(self, n=1, values=None):
        self.left -= n
        if self.left == 0:
            shutil.rmtree(self.folder)


def test_a_folder_that_vanishes_in_training_loses_no_model(log, tmp_path):
    fit(log, "gru", budget="12steps", out=tmp_path / "whole")
    fit(log, "gru", budget="12steps", out=tmp_path / "m", progress=_Remover(tmp_path / "m", 7))
    assert all((tmp_path / "m" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in MODEL)
    assert {path.name for path in (tmp_path / "m").iterdir()} >= {"card.md", "timing.json", "metrics.jsonl", *MODEL}


class _Stages(Silent):
    """Remembers what was begun."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name, total=None, unit="step"):
        self.stages.append(name)


def _closed(tmp_path: Path) -> list[Path]:
    """Places where nothing can be written; root may write where others may not."""
    (tmp_path / "file").write_text("")
    places = [Path("/proc/seqloom/m"), tmp_path / "file" / "m"]
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        places.append(tmp_path / "closed" / "m")
    return places


def test_places_that_cannot_be_written_are_told_before_training(log, tmp_path, capsys):
    for place in _closed(tmp_path):
        for verb in (fit, compare):
            stages = _Stages()
            with pytest.raises(DataError, match=rf"{place.name}.*(Check the path|Choose a place)"):
                verb(log, "gru", budget="2steps", out=place, progress=stages)
            assert not [name for name in stages.stages if "train" in name]
        assert main(["compare", str(log), "--out", str(tmp_path / "c"), "--report", f"{place}.html"]) == 2
        assert not (tmp_path / "c").exists()
        assert "Traceback" not in capsys.readouterr().err


def test_an_answer_that_cannot_be_written_is_told_before_it_is_made(log, tmp_path, monkeypatch, capsys):
    fit(log, "ngram", out=tmp_path / "m")
    monkeypatch.setattr("seqloom.app.fitted.Fitted.predict", lambda *_, **__: pytest.fail("predicted for nothing"))
    for to in ("/proc/seqloom/x.csv", f"{tmp_path}", f"{tmp_path}/x.docx", f"{log}/x.csv"):
        assert main(["predict", str(tmp_path / "m"), str(log), "--to", to]) == 2
        assert to in capsys.readouterr().err


def test_a_model_that_raises_takes_no_other_with_it(log, tmp_path, monkeypatch):
    real, trained = compare_module.fit_run, []

    def fails(run, loaded, *, name, **rest):
        trained.append(name)
        if name == "gru":
            raise RuntimeError("bad luck with\n<this>")
        return real(run, loaded, name=name, **rest)

    monkeypatch.setattr(compare_module, "fit_run", fails)
    found = compare(log, ["gru", "ngram"], budget="2steps", out=tmp_path)
    assert {entry.name: entry.error for entry in found.entries} == {
        "ngram": "",
        "unigram": "",
        "gru": "RuntimeError: bad luck with",
    }
    assert "bad luck with" in next(tmp_path.glob("arms/gru-*/error.txt")).read_text()
    monkeypatch.setattr(
        compare_module, "fit_run", lambda run, loaded, **rest: trained.append(rest["name"]) or real(run, loaded, **rest)
    )
    again = compare(log, ["gru", "ngram"], budget="2steps", out=tmp_path)
    assert not [entry for entry in again.entries if entry.error]
    assert trained == ["unigram", "gru", "ngram", "gru"]


@pytest.mark.parametrize("file", ["arm.json", "test.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "gone", "other", "byte"])
def test_a_damaged_arm_is_trained_anew(log, tmp_path, file, damage):
    whole = compare(log, "ngram", out=tmp_path).figures()["models"]
    arm = next(tmp_path.glob("arms/ngram-*")) / file
    content = bytearray(arm.read_bytes())
    content[-2 if file == "test.safetensors" else 1] ^= 0x11
    changed = {"cut": content[: len(content) // 2], "other": b'{"timing": 3}', "byte": bytes(content)}
    if damage == "gone":
        arm.unlink()
    else:
        arm.write_bytes(changed[damage])
    again = compare(log, "ngram", out=tmp_path).figures()["models"]
    quality = [(one["name"], one["bits_per_symbol"], one["error"]) for one in whole]
    assert [(one["name"], one["bits_per_symbol"], one["error"]) for one in again] == quality


def test_a_finished_arm_with_a_damaged_model_is_told_when_it_is_needed(log, tmp_path):
    compare(log, "ngram", out=tmp_path)
    weights = next(tmp_path.glob("arms/ngram-*")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        compare(log, "ngram", out=tmp_path).save_best(tmp_path / "best")


FILES = ("model.safetensors", "config.json", "vocabulary.json", "run.json", "metrics.json")


@pytest.fixture(scope="module")
def models(log, tmp_path_factory):
    """Two networks of one shape and a counted model."""
    place = tmp_path_factory.mktemp("models")
    for name, seed in (("gru", 1), ("gru", 2), ("ngram", 1)):
        fit(log, name, seed=seed, budget="3steps", out=place / f"{name}{seed}")
    return place


@pytest.mark.parametrize("model", ["gru1", "ngram1"])
@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_short_gone_or_edited_is_named(models, tmp_path, model, file):
    shutil.copytree(models / model, tmp_path / "m")
    path = tmp_path / "m" / file
    whole = path.read_bytes()
    assert load(tmp_path / "m").task == "next"
    for share in (0.0, 0.01, 0.3, 0.6, 0.99, 1.0):
        path.write_bytes(whole[: min(int(len(whole) * share), len(whole) - 3)])
        with pytest.raises(CheckpointError, match=rf"{file}.*(Copy the whole folder|fit the model again|fit FILE)"):
            load(tmp_path / "m")
    for k in range(40):
        at = (k * 7919 + 13) % len(whole)
        changed = bytearray(whole)
        changed[at] ^= 1 << (k % 7)
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"Copy the whole folder|fit the model again"):
            load(tmp_path / "m")
    path.unlink()
    with pytest.raises((CheckpointError, DataError), match="no finished model" if file == "config.json" else file):
        load(tmp_path / "m")
    path.mkdir()
    with pytest.raises((CheckpointError, DataError), match="no finished model" if file == "config.json" else file):
        load(tmp_path / "m")


@pytest.mark.parametrize("other", ["gru2", "ngram1"])
@pytest.mark.parametrize("file", FILES)
def test_a_file_of_another_model_is_named(models, tmp_path, other, file):
    shutil.copytree(models / "gru1", tmp_path / "m")
    mine, theirs = ((place / file).read_bytes() for place in (tmp_path / "m", models / other))
    (tmp_path / "m" / file).write_bytes(theirs)
    if mine == theirs:
        load(tmp_path / "m")
        return
    with pytest.raises(CheckpointError, match=r"taken from another model|do not fit"):
        load(tmp_path / "m")


def test_a_model_of_an_older_version_has_no_seal_and_is_read(models, tmp_path):
    import json

    shutil.copytree(models / "gru1", tmp_path / "m")
    document = json.loads((tmp_path / "m" / "config.json").read_text())
    del document["seal"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(document))
    assert load(tmp_path / "m").task == "next"


def test_a_damaged_checkpoint_is_not_gone_on_from(log, tmp_path, monkeypatch):
    from seqloom.training.loop import Interrupted, Loop

    real = Loop._one_step

    def stops(self):
        if self.step == 6:
            raise Interrupted("stopped")
        return real(self)

    monkeypatch.setattr(Loop, "_one_step", stops)
    with pytest.raises(Interrupted):
        fit(log, "gru", budget="8steps", out=tmp_path / "m")
    monkeypatch.setattr(Loop, "_one_step", real)
    path = tmp_path / "m" / "checkpoint.safetensors"
    whole = path.read_bytes()
    for changed in (whole[:-5], whole[: len(whole) // 2], b"", bytes([*whole[:-1], whole[-1] ^ 1])):
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors"):
            fit(log, "gru", budget="8steps", out=tmp_path / "m", resume=True)
    path.write_bytes(whole)
    tensors, meta = checkpoint.load(path)
    for less in ({k: v for k, v in meta.items() if k != "cursor"}, {k: v for k, v in meta.items() if k != "run"}):
        checkpoint.save(path, tensors, less)  # sealed, and still not what it should be
        with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors"):
            fit(log, "gru", budget="8steps", out=tmp_path / "m", resume=True)
    path.write_bytes(whole)
    fit(log, "gru", budget="8steps", out=tmp_path / "m", resume=True)
