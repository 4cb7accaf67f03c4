"""Where the figures of a run go: one JSON line an event, and TensorBoard's event file.

``metrics.jsonl`` holds {"kind": "step" | "look", "step": n, ...}; after a resume, lines beyond the resumed step are
dropped, so that the file tells one story. Where it cannot be written the run ends, with its last checkpoint kept;
TensorBoard's file says nothing that it does not say, so a failure there costs no run.
"""

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqloom.core.errors import mend_os_error
from seqloom.core.files import write_text


class Metrics:
    """Keeps the history in memory, and in the run's folder where there is one."""

    def __init__(self, folder: Path | None = None, *, resumed_at: int = 0) -> None:
        """Open the files; keep earlier lines up to the step at which the run was resumed."""
        self.events: list[dict[str, Any]] = []
        self._path = None if folder is None else folder / "metrics.jsonl"
        self._file, self._board = None, None
        if folder is None or self._path is None:
            return
        if self._path.exists():
            self.events = [event for event in _read(self._path) if resumed_at and event["step"] <= resumed_at]
        self._rewrite()
        try:
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise mend_os_error(error, self._path) from error
        self._board = _Board(folder / "tensorboard")

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Record one event."""
        event = {"kind": kind, "step": step, **values}
        self.events.append(event)
        if self._file is not None and self._board is not None:
            try:
                self._file.write(json.dumps(event) + "\n")
                self._file.flush()
            except OSError as error:
                raise mend_os_error(error, self._file.name) from error
            self._board.add(step, {f"{kind}/{name}": value for name, value in values.items()})

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind."""
        return [event for event in self.events if event["kind"] == kind]

    def close(self) -> None:
        """Flush and close the files."""
        file, board = self._file, self._board
        self._file, self._board = None, None
        if file is None or board is None or self._path is None:
            return
        board.close()
        try:
            file.close()
        except OSError as error:
            raise mend_os_error(error, self._path) from error
        if not self._path.exists():  # somebody removed the folder meanwhile
            self._rewrite()

    def _rewrite(self) -> None:
        if self._path is not None:
            write_text(self._path, "".join(json.dumps(event) + "\n" for event in self.events))


def _read(path: Path) -> list[dict[str, Any]]:
    """Whole lines; one cut short by a kill is the last one, and counts for nothing."""
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not (isinstance(event, dict) and isinstance(event.get("step"), int) and "kind" in event):
            break
        events.append(event)
    return events


class _Board:
    """TensorBoard's event file, written with its own messages, without its thread: no TensorFlow, no torch.utils."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._writer: Any = None
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.0"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = RecordWriter((folder / name).open("wb"))
        except OSError:
            return
        self._put(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, step: int, values: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        entries = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._put(Event(wall_time=time.time(), step=step, summary=Summary(value=entries)))

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError:
                return

    def _put(self, event: Any) -> None:
        if self._writer is not None:
            try:
                self._writer.write(event.SerializeToString())
                self._writer.flush()
            except OSError:  # a half-written record ends what TensorBoard reads: nothing may come behind it
                self.close()
