"""Files are whole or not there, and what was edited is refused."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from seqloom.core.errors import CheckpointError, DataError
from seqloom.training.checkpoint import load, read_json, replacing, save, write_json

TENSORS = {"b": torch.arange(6.0).view(2, 3).t(), "a": torch.tensor(3), "empty": torch.zeros(0, 2)}


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path / "x.safetensors", TENSORS, {"step": 3, "note": "ä"})
    tensors, meta = load(tmp_path / "x.safetensors")
    assert meta == {"step": 3, "note": "ä"}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    save(tmp_path / "x", TENSORS, {"a": 1, "b": 2})
    save(tmp_path / "y", dict(reversed(TENSORS.items())), {"b": 2, "a": 1})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_cut_short_at_any_place_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "x", TENSORS, {})
    whole = (tmp_path / "x").read_bytes()
    for length in (0, 1, 7, 8, 60, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load(tmp_path / "x")


def test_one_changed_byte_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "x", TENSORS, {})
    whole = bytearray((tmp_path / "x").read_bytes())
    whole[-1] ^= 1
    (tmp_path / "x").write_bytes(whole)
    with pytest.raises(CheckpointError, match="checksum"):
        load(tmp_path / "x")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(CheckpointError):
        load(tmp_path / "x")


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqloom.training.checkpoint.FORMAT", 2)
    save(tmp_path / "x", TENSORS, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 2"):
        load(tmp_path / "x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.safetensors"):
        load(tmp_path / "nothing.safetensors")


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


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file"):
        write_json(tmp_path / "file" / "x.json", {})


def test_json_cut_short_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1, 2]})
    text = (tmp_path / "x.json").read_text()
    (tmp_path / "x.json").write_text(text[: len(text) // 2])
    with pytest.raises(CheckpointError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_nan_has_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.dumps({}) == "{}"
    assert not (tmp_path / "x.json").exists()
