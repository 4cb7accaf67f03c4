"""MIDI: each track with notes is one sequence, ordered by onset.

symbol = number of the note (60 = middle C)    time = onset in seconds, by the tempo map
channels: ``velocity``, ``duration`` in seconds, ``channel`` (0 to 15; 9 is percussion)

A note ends at the next note-off of its number and channel; one that never ends lasts to the end of its track.
Source: MIDI Manufacturers Association, "Standard MIDI Files 1.0", 1996; the files are parsed by mido.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqloom.core.errors import DataError, MissingExtra
from seqloom.core.files import replacing
from seqloom.data._source import Source
from seqloom.data.columns import Columns, Guess
from seqloom.data.readers._base import BLOCK, Reader
from seqloom.data.sequences import CHANNEL, Sequences

_LARGEST, _LAST_TICK = 16 << 20, 1 << 40
_LONGEST_NUMBER = re.compile(rb"[\x80-\xff]{4096}")
_TICKS = 10_000  # of a written file in a second: one beat, at 60 beats a minute


@dataclass(frozen=True)
class _Clock:
    """From ticks to seconds: where the tempo changes, and the seconds until there."""

    ticks: np.ndarray
    tempos: np.ndarray
    per_beat: float

    @classmethod
    def of(cls, changes: list[tuple[int, int]], division: int) -> "_Clock":
        """``division`` is ticks a beat, or, negative, frames a second and ticks a frame (SMPTE)."""
        if division < 0:
            frames, parts = -(division >> 8), division & 0xFF
            return cls(np.array([0]), np.array([1_000_000]), (29.97 if frames == 29 else frames) * max(parts, 1))
        known = dict([(0, 500_000), *sorted(changes, key=lambda change: change[0])])
        return cls(np.array(list(known)), np.array(list(known.values())), division)

    def seconds(self, ticks: np.ndarray) -> np.ndarray:
        """Seconds since the beginning."""
        spent = np.concatenate([[0], np.cumsum(np.diff(self.ticks) * self.tempos[:-1])])
        at = np.searchsorted(self.ticks, ticks, side="right") - 1
        return (spent[at] + (ticks - self.ticks[at]) * self.tempos[at]) / (1e6 * self.per_beat)


class Midi(Reader):
    """Tracks of a MIDI file as sequences of notes."""

    def sniff(self, source: Source) -> float:
        """The name of the first chunk."""
        return 1.0 if source.head[:4] == b"MThd" else 0.9 if source.suffix in (".mid", ".midi") else 0.0

    def guess(self, source: Source, columns: Columns) -> Guess:
        """Nothing is open: the format says what is what."""
        self.refuse(source, columns, but=("inputs",))
        notes = (
            "each track with notes is one sequence of note numbers, named as its track is (60 is middle C)",
            "times are seconds; velocity, duration and channel of the notes are kept as channels",
        )
        return Guess(reader="midi", columns=columns, kind="symbols", notes=notes)

    def batches(self, source: Source, columns: Columns, *, block: int = BLOCK) -> Iterator[Sequences]:
        """One batch."""
        guess, file = self.guess(source, columns), _parsed(source)
        if file.ticks_per_beat == 0:
            raise DataError("a beat has no ticks", file=source.name, mend="Export the file again.")
        tracks = [_events(track, source.name) for track in file.tracks]
        whole = [change for changes, _ in tracks for change in changes]
        found: list[tuple[int, str, np.ndarray]] = []
        for number, (track, (changes, notes)) in enumerate(zip(file.tracks, tracks, strict=True), 1):
            if notes:
                clock = _Clock.of(changes if file.type == 2 else whole, file.ticks_per_beat)
                table = np.array(notes, np.int64)
                onset, end = clock.seconds(table[:, 0]), clock.seconds(table[:, 1])
                found.append((number, track.name.strip(), np.column_stack([table[:, 2:], onset, end - onset])))
        if found:
            yield _sequences(found, guess, source.name)

    def write(self, sequences: Sequences, path: str | Path) -> None:
        """One track a sequence, with times to a ten-thousandth of a second."""
        mido = _mido()
        file = mido.MidiFile(type=1, ticks_per_beat=_TICKS)
        for number, name in enumerate(sequences.ids):
            file.tracks.append(mido.MidiTrack(_messages(mido, sequences.select([number]), name, path)))
        if file.tracks:
            file.tracks[0].insert(0, mido.MetaMessage("set_tempo", tempo=1_000_000))
        with replacing(Path(path)) as part:
            file.save(str(part))


def _mido() -> Any:
    try:
        import mido
    except ImportError as error:
        raise MissingExtra("mido", "music") from error
    return mido


def _parsed(source: Source) -> Any:
    mido, content = _mido(), source.content()
    if len(content) > _LARGEST:
        problem = f"is larger than {_LARGEST >> 20} MB, which no piece of music is"
        raise DataError(problem, file=source.name, mend="Check that it is the right file, or split it.")
    if found := _LONGEST_NUMBER.search(content):  # mido would take them for one number of 28,672 bits
        problem = f"holds no MIDI at byte {found.start()}"
        raise DataError(problem, file=source.name, mend="Is it damaged? Copy or export it again.")
    try:
        return mido.MidiFile(file=io.BytesIO(content), clip=True)
    except Exception as error:  # mido lets through whatever it met in the bytes: EOFError, KeyError, ValueError, ...
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        problem = f"is no readable MIDI file: {words}"
        raise DataError(problem, file=source.name, mend="Is it cut short? Copy or export it again.") from error


def _events(track: Any, file: str) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Changes of tempo (tick, microseconds a beat), and notes: onset, end, number, velocity, channel."""
    tick = 0
    changes: list[tuple[int, int]] = []
    notes: list[list[int]] = []
    sounding: dict[tuple[int, int], list[list[int]]] = {}
    for message in track:
        tick += message.time
        if tick > _LAST_TICK:
            problem, mend = f"the track {track.name!r} lasts longer than any music", "Is it damaged? Export it again."
            raise DataError(problem, file=file, value=tick, mend=mend)
        if message.type == "set_tempo":
            changes.append((tick, message.tempo))
        elif message.type == "note_on" and message.velocity:
            note = [tick, -1, message.note, message.velocity, message.channel]
            notes.append(note)
            sounding.setdefault((message.note, message.channel), []).append(note)
        elif message.type in ("note_on", "note_off") and sounding.get((message.note, message.channel)):
            sounding[message.note, message.channel].pop(0)[1] = tick
    for held in sounding.values():
        for note in held:
            note[1] = tick
    return changes, notes


def _sequences(found: list[tuple[int, str, np.ndarray]], guess: Guess, file: str) -> Sequences:
    import pyarrow as pa

    from seqloom.data import _build

    offsets = np.concatenate([[0], np.cumsum([len(notes) for _, _, notes in found])])
    notes = np.concatenate([notes for _, _, notes in found])
    symbols = pa.array([str(int(note)) for note in notes[:, 0]], pa.string()).dictionary_encode()
    named = [name for _, name, _ in found]
    ids = [name if name and named.count(name) == 1 else f"{name or 'track'} {number}" for number, name, _ in found]
    columns = {"time": 3, CHANNEL + "velocity": 1, CHANNEL + "duration": 4, CHANNEL + "channel": 2}
    extra = {name: _build.listed(pa.array(notes[:, at]), offsets) for name, at in columns.items()}
    rows = np.array([number for number, _, _ in found])
    table = _build.table(_build.listed(symbols, offsets), ids=pa.array(ids, pa.string()), row=rows, columns=extra)
    return Sequences(table, "symbols", source=file, alphabet="events", notes=guess.notes)


def _messages(mido: Any, sequence: Sequences, name: str, path: str | Path) -> list[Any]:
    """The messages of one track, each with the ticks since the one before."""
    times, symbols = sequence.times(), sequence.sequence(0) if sequence.kind == "symbols" else None
    if symbols is None or not all(symbol.isdecimal() and int(symbol) < 128 for symbol in symbols):
        raise DataError("only sequences of note numbers from 0 to 127 can be tracks", file=path)
    if times is None or times.values.dtype != np.float64 or times.flat.min(initial=0) < 0:
        raise DataError("a note needs its onset in seconds since the beginning", file=path)
    count = len(symbols)
    given = {key: sequence.channel(key).flat for key in sequence.channels}
    onset = np.rint(times.flat * _TICKS).astype(np.int64)
    length = np.rint(given.get("duration", np.full(count, 0.25)) * _TICKS).astype(np.int64).clip(min=1)
    velocity = given.get("velocity", np.full(count, 64.0)).astype(int)
    channel = given.get("channel", np.zeros(count)).astype(int)
    marks = [(onset[i], 1, "note_on", i) for i in range(count)]
    marks += [(onset[i] + length[i], 0, "note_off", i) for i in range(count)]
    messages, tick = [mido.MetaMessage("track_name", name=name)], 0
    for at, _, kind, i in sorted(marks):
        pressed = int(velocity[i]) if kind == "note_on" else 0
        message = mido.Message(
            kind, note=int(symbols[i]), velocity=pressed, channel=int(channel[i]), time=int(at - tick)
        )
        messages.append(message)
        tick = at
    return messages
