import io
import sys
from pathlib import Path

import mido
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import DataError, MissingExtra, SeqloomError
from seqloom.data import _build
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers import midi
from seqloom.data.readers.midi import Midi
from seqloom.data.reading import read, reader_of, sniff
from seqloom.data.sequences import CHANNEL, Sequences
from seqloom.testing.readers import check_reader


def piece(tracks, division=480, kind=1):
    """Tracks of (message, ticks before it)."""
    file = mido.MidiFile(type=kind, ticks_per_beat=division)
    for messages in tracks:
        file.tracks.append(mido.MidiTrack(messages))
    return file


def on(note, time=0, velocity=64, channel=0):
    return mido.Message("note_on", note=note, velocity=velocity, channel=channel, time=time)


def off(note, time=0, channel=0):
    return mido.Message("note_off", note=note, channel=channel, time=time)


def saved(tmp_path, file, name="a.mid"):
    file.save(tmp_path / name)
    return tmp_path / name


def performance():
    log = Sequences.of(
        [["60", "64", "60"], ["0", "127"]], ids=["left", "right"], times=[[0.0, 0.1234, 7.5], [2.0, 2.0]]
    )
    offsets = np.array([0, 3, 5])
    for name, values in (
        ("velocity", [1, 64, 127, 9, 9]),
        ("duration", [0.1, 0.25, 1, 2, 3]),
        ("channel", [0, 1, 2, 9, 15]),
    ):
        log.table = _build.put(log.table, CHANNEL + name, _build.listed(pa.array(np.array(values, float)), offsets))
    return log


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.mid"
    path.write_bytes(b"old")

    def breaks(self, name):
        Path(name).write_bytes(b"MThd")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mido.MidiFile, "save", breaks)
    with pytest.raises(DataError, match=r"a\.mid: no space is left"):
        Midi().write(performance(), path)
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.mid"]


def test_contract(tmp_path):
    check_reader(Midi(), tmp_path, [performance()], suffix=".mid")


def test_times_follow_the_tempo_of_all_tracks_and_notes_their_ends(tmp_path):
    conductor = [mido.MetaMessage("set_tempo", tempo=1_000_000), mido.MetaMessage("set_tempo", tempo=250_000, time=480)]
    melody = [
        mido.MetaMessage("track_name", name="melody"),
        on(60),
        off(60, 480),
        on(62, 480),
        on(62, 480, 0),
        on(70, 10),
    ]
    log = read(saved(tmp_path, piece([conductor, melody])))
    assert (log.ids, log.rows.tolist(), log.sequence(0)) == (["melody"], [2], ["60", "62", "70"])
    assert log.times().flat[:2].tolist() == [0, 1.25]
    assert log.channel("duration").flat.tolist() == [1, 0.25, 0]
    assert log.channels == ("velocity", "duration", "channel")


GAPS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 127), st.integers(1, 1 << 24)), min_size=1, max_size=12)


@given(GAPS, st.integers(1, 2000))
def test_onsets_are_those_of_mido_s_own_clock(tmp_path_factory, notes, division):
    track = []
    for gap, note, tempo in notes:
        track += [on(note, gap), mido.MetaMessage("set_tempo", tempo=tempo - 1)]
    path = saved(tmp_path_factory.mktemp("midi"), piece([track], division))
    now, want = 0.0, []
    for message in mido.MidiFile(path):
        now += message.time
        if message.type == "note_on":
            want.append(now)
    np.testing.assert_allclose(read(path).times().flat, want, rtol=1e-12, atol=1e-12)


def test_tracks_of_one_name_stay_apart(tmp_path):
    name = mido.MetaMessage("track_name", name="piano")
    path = saved(tmp_path, piece([[name, on(1)], [name, on(2)], [on(3)], [name]]))
    assert read(path).ids == ["piano 1", "piano 2", "track 3"]
    assert all("60 is middle C" in note or "seconds" in note for note in sniff(path).notes)


def test_frames_of_film_are_a_clock_too(tmp_path):
    data = bytearray(saved(tmp_path, piece([[on(60, 100)]])).read_bytes())
    data[12:14] = bytes([256 - 25, 40])
    (tmp_path / "a.mid").write_bytes(data)
    assert read(tmp_path / "a.mid").start_times.tolist() == [0.1]


def test_every_track_of_a_file_of_songs_has_its_own_tempo(tmp_path):
    tempo = [mido.MetaMessage("set_tempo", tempo=1_000_000), on(1, 480)]
    path = saved(tmp_path, piece([tempo, [on(2, 480)]], kind=2))
    assert read(path).start_times.tolist() == [1, 0.5]


def good():
    file = io.BytesIO()
    piece([[mido.MetaMessage("track_name", name="x"), on(60), off(60, 480)], [on(61), off(61, 9)]]).save(file=file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (good()[:-3], "is no readable MIDI file"),
        (good()[:5], "is no readable MIDI file"),
        (b"MThd" + bytes(9), "is no readable MIDI file"),
        (good()[:12] + b"\0\0" + good()[14:], "a beat has no ticks"),
        (good() + b"\xff" * 5000, r"holds no MIDI at byte \d+"),
        (b"MThd" + bytes(17 << 20), "is larger than 16 MB"),
        (
            good()[:14] + b"MTrk\0\0\0\x0c" + b"\xff" * 7 + b"\x7f\x90\x40\x40" + bytes(40),
            "longer than any music|readable",
        ),
        (b"RIFF", "is no readable MIDI file"),
    ],
)
def test_broken_files_are_refused(tmp_path, data, words):
    path = tmp_path / "a.mid"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        read(path)
    assert caught.value.mend


def error_of(path):
    """The words of the error that a file is refused with; None where it is read."""
    try:
        read(path, reader="midi")
    except SeqloomError as error:
        return str(error)
    return None


@given(st.data())
def test_broken_bytes_are_sequences_or_an_error_with_a_mend(tmp_path_factory, data):
    whole = good()
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 60)) :]
    path = tmp_path_factory.mktemp("broken") / "a.mid"
    path.write_bytes(broken)
    words = error_of(path)
    assert words is None or str(path) in words


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    path = saved(tmp_path, piece([[on(60)]]))
    monkeypatch.setitem(sys.modules, "mido", None)
    assert isinstance(reader_of(Source(path)), Midi)
    with pytest.raises(MissingExtra, match=r"seqloom\[music\]"):
        read(path)


def test_flags_and_files_without_notes_are_refused(tmp_path):
    path = saved(tmp_path, piece([[mido.MetaMessage("track_name", name="x")]]))
    with pytest.raises(DataError, match="holds no sequence"):
        read(path)
    with pytest.raises(DataError, match="--case means nothing"):
        read(path, columns=Columns(case="x"))
    for sequences, words in ((Sequences.of([["C4"]]), "note numbers"), (Sequences.of([["60"]]), "onset in seconds")):
        with pytest.raises(DataError, match=words):
            Midi().write(sequences, path)
    assert midi._LARGEST == 16 << 20
