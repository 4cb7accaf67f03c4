"""Where the figures of a run go: one JSON line an event, and TensorBoard's event file.

``metrics.jsonl`` holds {"kind": "step" | "look", "step": n, ...}; after a resume, lines beyond the resumed step are
dropped, so that the file tells one story.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqloom.training.checkpoint import write_text


class Metrics:
    """Keeps the history in memory, and in the run's folder where there is one."""

    def __init__(self, folder: Path | None = None, *, resumed_at: int = 0) -> None:
        """Open the files; keep earlier lines up to the step at which the run was resumed."""
        self.events: list[dict[str, Any]] = []
        self._file, self._board = None, None
        if folder is None:
            return
        path = folder / "metrics.jsonl"
        if path.exists():
            self.events = [event for event in _read(path) if resumed_at and event["step"] <= resumed_at]
        write_text(path, "".join(json.dumps(event) + "\n" for event in self.events))
        self._file = path.open("a", encoding="utf-8")
        self._board = _Board(folder / "tensorboard")

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Record one event."""
        event = {"kind": kind, "step": step, **values}
        self.events.append(event)
        if self._file is not None and self._board is not None:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
            self._board.add(step, {f"{kind}/{name}": value for name, value in values.items()})

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind."""
        return [event for event in self.events if event["kind"] == kind]

    def close(self) -> None:
        """Flush and close the files."""
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()
        self._file, self._board = None, None


def _read(path: Path) -> list[dict[str, Any]]:
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break  # a line cut short by a kill is the last one that counts for nothing
    return events


class _Board:
    """TensorBoard's own light writer: no TensorFlow, no torch.utils."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder))

    def add(self, step: int, values: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        entries = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=entries)))

    def close(self) -> None:
        self._writer.close()
