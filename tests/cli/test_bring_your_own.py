"""Every kind of file that README promises, from inspect to a fitted model that answers; the files are made here."""

import datetime as dt
import gzip
import io
import json
import sys

import numpy as np
import polars as pl
import pytest

from seqloom.data.readers.xes import Xes
from seqloom.data.sequences import Sequences

WHEN = dt.datetime(2024, 1, 1)
EVENTS = [list("abcd" * 2)[k % 4 :][: 3 + k % 4] for k in range(40)]
TIMES = [[WHEN + dt.timedelta(hours=3 * k + i) for i in range(len(events))] for k, events in enumerate(EVENTS)]
ROWS = [(f"c{k}", event, time) for k, own in enumerate(EVENTS) for event, time in zip(own, TIMES[k], strict=True)]
FRAME = pl.DataFrame(ROWS, schema=["order_id", "status", "at"], orient="row")
WAVES = np.random.default_rng(0).normal(size=(40, 12)).cumsum(1).round(3)


def event_log(folder):
    path = folder / "orders.csv"
    FRAME.write_csv(path)
    return path, ["--case", "order_id", "--event", "status", "--time", "at"]


def parquet(folder):
    path = folder / "orders.parquet"
    FRAME.write_parquet(path)
    return path, ["--case", "order_id", "--event", "status", "--time", "at"]


def reviews(folder):
    path = folder / "reviews.csv"
    lines = [f'"{"good film " * (2 + k % 3)}",5\n"{"bad film " * (2 + k % 3)}",1\n' for k in range(30)]
    path.write_text("body,stars\n" + "".join(lines))
    return path, ["--text", "body", "--label", "stars"]


def lines(folder):
    path = folder / "log.txt"
    path.write_text("".join("".join(own) + "\n" for own in EVENTS))
    return path, []


def fasta(folder):
    path = folder / "genome.fa.gz"
    path.write_bytes(gzip.compress("".join(f">r{k}\n{'ACGT' * (3 + k % 5)}\n" for k in range(40)).encode()))
    return path, []


def nested(folder):
    path = folder / "cases.jsonl"
    rows = ({"case": f"c{k}", "events": [{"activity": e} for e in own]} for k, own in enumerate(EVENTS))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, []


def xes(folder):
    path = folder / "log.xes"
    Xes().write(Sequences.of(EVENTS, times=TIMES), path)
    return path, []


def recbole(folder):
    path = folder / "clicks.inter"
    rows = "".join(f"{case}\t{event}\t{time.timestamp()}\n" for case, event, time in ROWS)
    path.write_text("user_id:token\titem_id:token\ttimestamp:float\n" + rows)
    return path, []


def long_series(folder):
    path = folder / "sensors.csv"
    rows = (f"s{k},{WHEN + dt.timedelta(days=t)},{y}\n" for k, wave in enumerate(WAVES) for t, y in enumerate(wave))
    path.write_text("unique_id,ds,y\n" + "".join(rows))
    return path, []


def wide_series(folder):
    path = folder / "weather.csv"
    flat = WAVES.reshape(-1, 2)
    path.write_text(
        "date,temp,wind\n" + "".join(f"{WHEN + dt.timedelta(days=t)},{a},{b}\n" for t, (a, b) in enumerate(flat))
    )
    return path, []


def arrays(folder):
    path = folder / "waves.npy"
    np.save(path, WAVES)
    return path, []


def midi(folder):
    mido = pytest.importorskip("mido")
    path = folder / "tunes.mid"
    file = mido.MidiFile()
    for k in range(30):
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=f"t{k}")])
        for step in range(8):
            note = 60 + (k + step) % 5
            track += [mido.Message("note_on", note=note, time=0), mido.Message("note_off", note=note, time=120)]
        file.tracks.append(track)
    file.save(path)
    return path, []


KINDS = [
    event_log, parquet, reviews, lines, fasta, nested, xes, recbole, long_series, wide_series, arrays, midi
]  # fmt: skip


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_from_inspect_to_an_answer(make, tmp_path, called, answered):
    path, flags = make(tmp_path)
    card = answered("inspect", path, *flags)
    assert card["notes"], "nothing was said of what was guessed"
    values = card["kind"].startswith("values")
    model = "random_walk" if values else "ngram"
    code, out, err = called("fit", path, *flags, "--model", model, "--out", tmp_path / "m")
    assert code == 0, err
    assert "trivial answer" in out
    rows = answered("predict", tmp_path / "m", path)["rows"]
    assert len({row["id"] for row in rows}) == card["sequences"]
    scored = answered("score", tmp_path / "m", path)["rows"]
    assert [row["id"] for row in scored] == list(dict.fromkeys(row["id"] for row in rows))


def test_standard_input_and_a_stream(tmp_path, answered, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FRAME.write_csv().encode())))
    card = answered("inspect", "-", "--case", "order_id", "--event", "status")
    assert card["sequences"] == 40
    path, _ = lines(tmp_path)
    assert answered("inspect", path, "--stream")["sequences"] == 1
