"""Files are whole or not there, and what another process is writing is left alone."""

import json
import multiprocessing
import os
import resource
from pathlib import Path

import polars as pl
import pytest

from seqloom.cli._terminal import write_frame
from seqloom.core.errors import CheckpointError, ConfigError, DataError
from seqloom.core.files import check_writable, inside, parsed, read_json, remove, replacing, write_json, write_text


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"old": True})

    def fail() -> None:
        with replacing(tmp_path / "x.json") as part:
            part.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert read_json(tmp_path / "x.json") == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_parts_of_the_dead_are_cleared_and_those_of_the_living_stay(tmp_path: Path) -> None:
    (tmp_path / ".x.json.dead.part").write_text("half")
    (tmp_path / ".y.json.dead.part").write_text("of another file")
    with replacing(tmp_path / "x.json") as mine:
        mine.write_text("{}")
        write_json(tmp_path / "x.json", {"other": "writer"})
        assert mine.exists()
        assert not (tmp_path / ".x.json.dead.part").exists()
    assert read_json(tmp_path / "x.json") == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".y.json.dead.part", "x.json"]


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(tmp_path / "x.json", k)) for k in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(set(read_json(tmp_path / "x.json"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def _write_often(path: Path, number: int) -> None:
    for _ in range(60):
        write_json(path, [number] * 2000)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".jsonl", ".json"])
def test_a_disk_that_takes_no_more_is_told_for_every_format(tmp_path: Path, ending: str) -> None:
    """The kernel's own refusal, through whatever library writes: a limit on the size of files."""
    frame = pl.DataFrame({"id": [f"s{k}" for k in range(20_000)], "bits": [0.1 * k for k in range(20_000)]})
    path = tmp_path / f"answer{ending}"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(DataError, match=r"answer\..*larger than this system allows.*ulimit"):
            write_text(path, "x" * 100_000) if ending == ".json" else write_frame(frame, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("text", ["[" * 5000, "[" * 200 + "]" * 200, '{"a":' * 90 + "1" + "}" * 90])
def test_json_that_is_nested_without_end_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}', "[1, -Infinity]", "", "{", '"\ud800', "1" * 5000])
def test_json_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="not readable JSON"):
        parsed(text, "x")


def test_json_of_unreasonable_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(1 << 33)  # a hole: nothing of it is on the disk
    with pytest.raises(CheckpointError, match="no file of seqloom"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", "C:x", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="plain file name"):
        inside(tmp_path, name)
    assert inside(tmp_path, "card.md") == tmp_path / "card.md"


def test_a_place_is_probed_without_a_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep" / "x.html")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(DataError, match=path.name):
            check_writable(path)
    if os.geteuid():
        (tmp_path / "folder").chmod(0o500)
        with pytest.raises(DataError, match="permission denied"):
            check_writable(tmp_path / "folder" / "x")
    with pytest.raises(DataError):
        check_writable(Path("/proc/seqloom/x"))


def test_removing_names_what_stands_in_the_way(tmp_path: Path) -> None:
    remove(tmp_path / "absent")
    with pytest.raises(DataError, match=tmp_path.name):
        remove(tmp_path)


def test_json_is_stable_and_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": "ä", "a": [1]})
    assert (tmp_path / "x.json").read_text() == json.dumps({"b": "ä", "a": [1]}, indent=2, ensure_ascii=False) + "\n"
