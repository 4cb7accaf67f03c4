"""metrics.jsonl tells one story, and TensorBoard reads ours."""

import json
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from seqloom.core.errors import DataError
from seqloom.training.metrics import Metrics


def test_lines_beyond_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    first = Metrics(tmp_path)
    for step in (1, 2, 3):
        first.add("step", step, {"nll": 1.0 / step})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')  # cut short by a kill
    second = Metrics(tmp_path, resumed_at=2)
    second.add("step", 3, {"nll": 0.25})
    second.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["nll"]) for line in lines] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert second.of("step") == lines


def test_a_fresh_run_forgets_the_old_story(tmp_path: Path) -> None:
    old = Metrics(tmp_path)
    old.add("step", 1, {"nll": 1.0})
    old.close()
    fresh = Metrics(tmp_path)
    fresh.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_tensorboard_reads_it(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.add("look", 5, {"loss": 0.5})
    metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("look/loss")] == [(5, 0.5)]


@pytest.mark.parametrize("at", ["mkdir", "open", "write", "flush", "close"])
def test_a_failure_of_tensorboard_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if at in ("mkdir", "open"):
        real = getattr(Path, at)

        def only_there(path: Path, *args: object, **options: object) -> object:
            return fails() if "tensorboard" in (path.name, path.parent.name) else real(path, *args, **options)

        monkeypatch.setattr(Path, at, only_there)
    else:
        writer, closes = "tensorboard.summary.writer.record_writer.RecordWriter", RecordWriter.close
        monkeypatch.setattr(f"{writer}.{at}", lambda self, *_: (closes(self), fails()))
    metrics = Metrics(tmp_path)
    metrics.add("step", 1, {"nll": 1.0})
    metrics.add("step", 2, {"nll": 0.5})
    metrics.close()
    assert [event["step"] for event in metrics.events] == [1, 2]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_a_folder_that_is_removed_meanwhile_comes_back(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m")
    metrics.add("step", 1, {"nll": 1.0})
    shutil.rmtree(tmp_path / "m")
    metrics.add("step", 2, {"nll": 0.5})
    metrics.close()
    assert (tmp_path / "m" / "metrics.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize("line", ["[1]", '{"kind": "step"}', "[" * 9000, '{"step": "x", "kind": "step"}', "\x00\xff"])
def test_lines_that_are_no_events_end_the_story(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "step": 1}\n' + line + '\n{"kind": "step", "step": 2}\n')
    metrics = Metrics(tmp_path, resumed_at=5)
    metrics.close()
    assert [event["step"] for event in metrics.events] == [1]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("")
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        Metrics(tmp_path / "m")
