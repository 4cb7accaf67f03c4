"""metrics.jsonl tells one story, and TensorBoard reads ours."""

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
