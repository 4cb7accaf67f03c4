"""Packed input: what fills the memory is refused, what is merely repetitive is read."""

import gzip
import io
import sys
import tracemalloc

import pytest
import zstandard

from seqloom.core.errors import DataError
from seqloom.data._source import BOMB_BYTES, Source
from seqloom.data.reading import read

PACK = {"gz": lambda data: gzip.compress(data, 6), "zst": zstandard.compress}
ROW = b"abcdefghij" * 100 + b"\n"


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_bomb_is_refused_with_bounded_memory(tmp_path, kind, monkeypatch):
    path = tmp_path / f"x.txt.{kind}"
    path.write_bytes(PACK[kind](b"\0" * (2 * BOMB_BYTES)))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"x\.txt.*unpacks to more than 500 times its size.*unpack it yourself"):
        for _ in Source(path).blocks():
            pass
    assert tracemalloc.get_traced_memory()[1] < 2 * BOMB_BYTES
    tracemalloc.stop()
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": io.BytesIO(path.read_bytes())}))
    with pytest.raises(DataError, match="standard input: unpacks to more than 500 times"):
        for _ in Source("-").blocks():
            pass


def test_a_bomb_is_refused_by_every_way_to_read_it(tmp_path):
    (tmp_path / "x.csv.zst").write_bytes(PACK["zst"](b"case,event\n" + b"a,x\n" * (BOMB_BYTES // 3)))
    with pytest.raises(DataError, match="unpacks to more than 500 times"):
        read(tmp_path / "x.csv.zst")


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_what_is_repetitive_but_small_is_read(tmp_path, kind):
    path = tmp_path / f"x.txt.{kind}"
    data = ROW * (BOMB_BYTES // len(ROW) - 1)
    path.write_bytes(PACK[kind](data))
    assert path.stat().st_size * 200 < len(data)
    assert sum(map(len, Source(path).blocks())) == len(data)


def test_much_data_of_an_ordinary_ratio_is_read(tmp_path):
    path = tmp_path / "x.gz"
    noise = bytes(range(256)) * 4 + ROW * 20
    path.write_bytes(PACK["gz"](noise * 4096) * 2)
    assert sum(map(len, Source(path).blocks())) == len(noise) * 8192
