"""What makes a result stale, and what does not."""

from pathlib import Path

from seqloom.core.discovery import ROOT
from seqloom.core.fingerprint import code_hash, config_hash, part_files

BODY = """\
'''Says something.'''

from seqloom.core.errors import ConfigError


def f():
    '''Doc.'''
    return {value}
"""


def written(folder: Path, text: str) -> str:
    file = folder / "module.py"
    copy = folder / str(abs(hash(text)))
    copy.mkdir(exist_ok=True)
    file = copy / "module.py"
    file.write_text(text)
    return code_hash([file])


def test_comments_and_docstrings_make_nothing_stale(tmp_path: Path) -> None:
    plain = BODY.format(value=1)
    talkative = plain.replace("Says something.", "Says more.").replace("    return", "    # because\n\n    return")
    assert written(tmp_path, plain) == written(tmp_path, talkative)


def test_code_makes_it_stale(tmp_path: Path) -> None:
    assert written(tmp_path, BODY.format(value=1)) != written(tmp_path, BODY.format(value=2))


def test_what_is_imported_counts(tmp_path: Path) -> None:
    text = BODY.format(value=1)
    assert written(tmp_path, text) != written(
        tmp_path, text.replace("core.errors import ConfigError", "core.rng import state")
    )


def test_the_closure_is_transitive(tmp_path: Path) -> None:
    direct = code_hash([ROOT / "core" / "errors.py"])
    via = code_hash([ROOT / "core" / "discovery.py"])
    assert direct != via
    assert via != code_hash([ROOT / "core" / "component.py"])


def test_config_hash_ignores_the_order_of_keys() -> None:
    assert config_hash({"a": 1, "b": [1, 2]}) == config_hash({"b": [1, 2], "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})


def test_parts_are_found_in_nested_documents() -> None:
    document = {"part": "models/causal_lm", "backbone": {"mixers": [{"part": "mixers/gru"}]}, "x": {"part": "no/where"}}
    assert [file.stem for file in part_files(document)] == ["causal_lm", "gru"]
