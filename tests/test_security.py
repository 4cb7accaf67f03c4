"""A file of somebody else is data: it is never run, never leads out of its folder, and never becomes markup."""

import ast
import html.parser
import json
import pickle
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seqloom.app.compare import Comparison, Entry, arm_name, compare
from seqloom.app.fit import fit
from seqloom.app.fitted import load
from seqloom.app.report import render
from seqloom.claims._runner import run_claim
from seqloom.core import discovery
from seqloom.core.errors import CheckpointError, ConfigError, SeqloomError
from seqloom.data import read, samples
from seqloom.data.sequences import Sequences
from seqloom.training import checkpoint
from seqloom.training.run import Run

SRC = Path(__file__).resolve().parent.parent / "src" / "seqloom"
RUNS_CODE = {
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "runpy",
    "code",
    "imp",
}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "torch.load",
    "torch.save",
    "torch.hub.load",
    "os.system",
    "os.popen",
    "os.execv",
    "yaml.load",
    "pl.read_ipc",
}
JSON_FILES = ("config.json", "vocabulary.json", "run.json")


def offences(text: str) -> list[str]:
    """What in a source file could run what a file says."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in RUNS_CODE]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in RUNS_CODE:
            found.append(str(node.module))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] if called in CALLS or called in METHODS else []
            found += [key.arg for key in node.keywords if key.arg in ("allow_pickle", "shell") and not _is_false(key)]
            if called.split(".")[-1] == "load" and called.split(".")[0] in ("np", "numpy"):
                found += [] if any(key.arg == "allow_pickle" for key in node.keywords) else [called]
    return found


def _is_false(key: ast.keyword) -> bool:
    return isinstance(key.value, ast.Constant) and key.value.value is False


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda path: path.relative_to(SRC).as_posix())
def test_no_source_file_unpickles_or_runs_text(path):
    assert not offences(path.read_text("utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "import marshal as m",
        "torch.load(f)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "numpy.load(f, allow_pickle=maybe)",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
        "yaml.load(x)",
    ],
)
def test_the_search_finds_what_it_looks_for(text):
    assert offences(text)
    assert not offences("model.eval(); np.load(f, allow_pickle=False); torch.compile(model); run(x, shell=False)")


class _Bomb:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return Path.touch, (Path(self.canary),)


@pytest.fixture
def canary(tmp_path):
    """A file that must not come into being."""
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists()


def test_the_bomb_works(tmp_path):
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.txt", "x.parquet", "x.pkl", "x.npy.gz"])
def test_pickles_are_not_opened_by_any_reader(tmp_path, canary, name):
    import gzip

    bombs = np.array([_Bomb(canary)] * 3, dtype=object)
    path = tmp_path / name
    if name == "x.npz":
        np.savez(path, a=bombs)
    elif ".npy" in name:
        np.save(tmp_path / "x.npy", bombs)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress((tmp_path / "x.npy").read_bytes()))
    else:
        path.write_bytes(pickle.dumps(_Bomb(canary), protocol=0 if name == "x.txt" else 4))
    for reader in (None, *discovery.names("data/readers")):
        try:
            read(path, reader=reader)
        except SeqloomError as error:
            assert path.name in str(error)  # noqa: PT017  (text is text: a pickle of protocol 0 can be read as lines)


CYCLE = [list("abcd" * 3)[k % 4 :][: 5 + k % 4] for k in range(32)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A network and a counted model on the disk, by name."""
    place = tmp_path_factory.mktemp("models")
    for name in ("gru", "ngram"):
        fit(Sequences.of(CYCLE), name, budget="2steps", out=place / name)
    return place


@pytest.fixture(params=["gru", "ngram"])
def folder(request, folders, tmp_path):
    """A copy of a model without its seal: who edits a file on purpose can seal it again."""
    import shutil

    copy = tmp_path / "m"
    shutil.copytree(folders / request.param, copy)
    edit(copy / "config.json", lambda document: document.pop("seal"))
    load(copy)
    return copy


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_pickle_in_place_of_weights_is_not_opened(folder, canary):
    (folder / "model.safetensors").write_bytes(pickle.dumps(_Bomb(canary)))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load(folder)


def _header(size: int, header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", size) + header + data


def _saying(header: bytes, data: bytes = b"") -> bytes:
    return _header(len(header) + 8, header.ljust(len(header) + 8), data)


LIES = {
    "a header as long as all memory": _header(1 << 60, b"{}"),
    "a header of 200 MB that is not there": _header(200_000_000, b"{}"),
    "no header": _header(0, b""),
    "a header that is no JSON": _header(4, b"{{{{"),
    "a tensor beyond the file": _saying(b'{"a":{"dtype":"F32","shape":[9000],"data_offsets":[0,36000]}}'),
    "a shape that is not its bytes": _saying(b'{"a":{"dtype":"F32","shape":[99],"data_offsets":[0,4]}}', b"1234"),
    "a shape beyond all numbers": _saying(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', b"1234"
    ),
    "a negative shape": _saying(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"1234"),
    "a kind of number that there is not": _saying(b'{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,4]}}', b"1234"),
    "metadata that are a list": _saying(b'{"__metadata__":{"seqloom":"[1]"}}'),
    "metadata without a checksum": _saying(b'{"__metadata__":{"seqloom":"{\\"format\\": 1}"}}'),
    "metadata nested without end": _saying(b'{"__metadata__":{"seqloom":"' + b"[" * 5000 + b'"}}'),
    "a checksum that is a number": _saying(
        b'{"__metadata__":{"seqloom":"{\\"format\\": 1, \\"sha256\\": 3, \\"meta\\": 4}"}}'
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_weights_that_lie_about_themselves_are_refused(tmp_path, lie):
    (tmp_path / "x.safetensors").write_bytes(LIES[lie])
    for reading in (checkpoint.load, checkpoint.digest):
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            reading(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "part",
    [
        "os.system",
        "subprocess.Popen",
        "antigravity.X",
        "../../x",
        "../x/y.Z",
        "core/errors.SeqloomError",
        "core/../core/errors.SeqloomError",
        "__main__.X",
        "cli/_main.main",
        "cli/fit",
        "testing/_faults.Disk",
        "this.s",
        "core/component._class_of",
        "kernels/linear_scan/triton_cuda.X",
        "mixers/../mixers/gru",
        "mixers/nothing",
        "/etc/passwd",
        "",
        "a" * 100_000,
        "\0",
        3,
        None,
        [],
        {},
    ],
)
@pytest.mark.parametrize("file", JSON_FILES)
def test_a_part_from_elsewhere_is_refused_and_not_imported(folder, part, file):
    def change(document):
        target = {"config.json": document.get("model"), "run.json": document, "vocabulary.json": document.get("config")}
        target[file]["part"] = part

    edit(folder / file, change)
    with pytest.raises(CheckpointError, match=str(folder)):
        load(folder)
    assert not {"antigravity", "this"} & set(sys.modules)


def _numbers(document, path=()):
    """Places of every whole number in a document."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _numbers(value, (*path, key))
    elif isinstance(document, list):
        for key, value in enumerate(document):
            yield from _numbers(value, (*path, key))
    elif isinstance(document, int) and not isinstance(document, bool):
        yield path


def _put(document, path, value):
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


@pytest.mark.parametrize("value", [10**9, 10**18, 10**30, -1, -(10**9), 0, 1.5, "64", None, [64], {"a": 1}, True])
def test_a_number_that_cannot_be_is_refused_before_it_takes_memory(folder, value):
    """Every number of config.json in turn; what is refused is told, what is not must at least load in no time."""
    import resource

    text = (folder / "config.json").read_text()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in _numbers(json.loads(text)):
        document = json.loads(text)
        _put(document, path, value)
        (folder / "config.json").write_text(json.dumps(document))
        try:
            load(folder)
        except SeqloomError as error:
            assert str(folder) in str(error)  # noqa: PT017
        else:
            assert value in (0, True, -1, -(10**9), None), (path, value)  # dropout, window and their kin
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # kB


@pytest.mark.parametrize("file", ["config.json", "vocabulary.json", "run.json", "metrics.json"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        '"x"',
        "{}",
        "NaN",
        '{"format": 1}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 10_000,
        "\0",
        "{",
    ],
)
def test_documents_that_are_none_are_refused(folder, file, text):
    (folder / file).write_text(text)
    if file == "metrics.json" and text in ("{}", '{"format": 1}'):
        return
    with pytest.raises(CheckpointError, match=str(folder)):
        load(folder)


@pytest.mark.parametrize("file", JSON_FILES)
def test_extra_keys_and_newer_formats_are_refused(folder, file):
    text = (folder / file).read_text()
    edit(folder / file, lambda document: document.update(surprise=1))
    if file != "vocabulary.json":  # its outer object is no value of its own
        with pytest.raises(CheckpointError, match="surprise"):
            load(folder)
    (folder / file).write_text(text)
    for newer in (2, "1", None, 1.5, [1]):
        edit(folder / file, lambda document, newer=newer: document.update(format=newer))
        with pytest.raises(CheckpointError, match=r"version of seqloom|Bring seqloom up to date"):
            load(folder)


def test_deep_values_are_refused(folder):
    deep: object = 1
    for _ in range(500):
        deep = {"part": "mixers/gru", "a": deep}
    edit(folder / "config.json", lambda document: document.update(model=deep))
    with pytest.raises(CheckpointError, match="nested too deeply"):
        load(folder)
    with pytest.raises(SeqloomError):
        Run.from_json({"format": 1, "part": "os.system"})


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "a/b", "x\0", ".hidden", "", "ünï"])
def test_names_do_not_leave_their_shelf(tmp_path, name):
    with pytest.raises(ConfigError):
        samples.path(name)
    with pytest.raises(SeqloomError):
        read(f"sample:{name}")
    with pytest.raises(ConfigError):
        run_claim(name)
    with pytest.raises(ConfigError):
        discovery.get("recipes", name)
    for verb in (fit, compare):
        with pytest.raises(ConfigError):
            verb(Sequences.of(CYCLE), [name] if verb is compare else name or "/", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_a_model_do_not_leave_it(folders, tmp_path):
    fitted = load(folders / "ngram")
    for name in ("../x.md", "/tmp/x.md", "a/b.md", "..", ""):
        fitted.files = {name: "text"}
        with pytest.raises(ConfigError, match="plain file name"):
            fitted.save(tmp_path / "m")
        assert not (tmp_path / "m" / "config.json").exists()
    assert not (tmp_path / "x.md").exists()


@pytest.mark.parametrize("name", ["../../x", "a/b", "s4d*2,attention", " gru\n", "..", "a\0b", "x" * 500, "<b>"])
def test_an_arm_stays_in_its_folder(folders, tmp_path, name):
    arm = tmp_path / arm_name(name, load(folders / "gru").run)
    assert arm.parent == tmp_path
    arm.mkdir()
    assert arm.resolve().parent == tmp_path.resolve()


HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    "]]>",
    "' onload='alert(1)",
    '" onmouseover="alert(1)',
    "{{ 7*7 }}",
    "&lt;b&gt;",
    "</title><b>",
    "\u2028<svg/onload=alert(1)>",
)


class _Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.comments = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def handle_comment(self, data):
        self.comments.append(data)


def _page(words, place) -> tuple[_Tags, Comparison]:
    """The report of a comparison whose every name is given by others."""
    cycle = [words[k % len(words) :] + words for k in range(30)]
    path = place / "".join(letter for letter in words[0] if letter not in "/\0")
    cases = [(f"{words[k % len(words)]}{k}", own) for k, own in enumerate(cycle)]
    rows = "".join(json.dumps({"case": case, "event": word}) + "\n" for case, own in cases for word in own)
    path.with_suffix(".jsonl").write_text(rows)
    found = compare(path.with_suffix(".jsonl"), ["ngram", "gru"], budget="2steps")
    for entry, word in zip(found.entries, words, strict=False):
        entry.name = word
        if entry.row is not None:
            entry.row = replace(entry.row, name=word, ties=tuple(words))
    found.entries.append(Entry(words[3], error=words[4]))
    found.notes += words
    found.data["lines"] += words
    found.split["leakage"] += words
    page = _Tags()
    page.feed(render(found))
    page.close()
    return page, found


def test_no_word_of_the_data_becomes_markup(tmp_path):
    hostile, _ = _page(list(HOSTILE), tmp_path)
    plain, _ = _page([f"word{k}" for k in range(len(HOSTILE))], tmp_path)
    assert hostile.tags == plain.tags
    assert hostile.comments == plain.comments == []
    text = "".join(hostile.text)
    assert all(word in text for word in HOSTILE)
    assert "49" not in [piece.strip() for piece in hostile.text]


def test_nothing_in_data_commands_the_terminal(tmp_path, capsys):
    from seqloom.cli import main

    evil = "\x1b]0;owned\x07\x1b[2J"
    (tmp_path / "x.csv").write_text(f"case,event,{evil}\n" + "".join(f"c{k},{evil}{k % 2},1\n" for k in range(30)))
    for words in (["inspect", tmp_path / "x.csv"], ["fit", tmp_path / "x.csv", "--model", evil]):
        main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "\x1b]" not in out + err
        assert "\x1b[2J" not in out + err
