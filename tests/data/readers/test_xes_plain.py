"""Plain logs are read by arrays, all others by a parser; both must say the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import SeqloomError
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers import _xes_plain
from seqloom.data.readers.xes import Xes
from seqloom.data.sequences import Sequences

HEAD = '<?xml version="1.0" encoding="UTF-8" ?>\n<log xes.version="1.0">\n'
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=4)


def plain_log(traces, gap="\n\t", indent=" "):
    """Traces of (name, day, cost) as most programs write them."""
    text = HEAD.replace("\n", gap.lstrip("\t "), 1) if gap.strip("\t ") else HEAD
    for number, events in enumerate(traces):
        text += f'<trace>{gap}<string key="concept:name" value="t{number}"/>{gap}'
        for name, day, cost in events:
            name = name.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
            text += f'<event>{gap}{indent}<string key="concept:name" value="{name}"/>{gap}{indent}'
            text += "" if cost is None else f'<int key="cost" value="{cost}"/>{gap}'
            text += f'<date key="time:timestamp" value="2024-01-0{day + 1}T00:00:00Z"/>{gap}</event>{gap}'
        text += f"</trace>{gap}"
    return text + "</log>\n"


def outcome(path, block):
    """All that is read, or the words of the error."""
    try:
        log = Sequences.join(list(Xes().batches(Source(path), Columns(), block=block)))
    except SeqloomError as error:
        return str(error)
    channels = {name: (log.channel_symbols(name), log.channel(name).flat.tolist()) for name in log.channels}
    return str((log.ids, log.rows, [log.sequence(i) for i in range(len(log))], log.times(), log.start_times, channels))


PLAIN = st.lists(
    st.lists(st.tuples(TEXT, st.integers(0, 3), st.none() | st.integers(-5, 5)), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)
GAPS = st.tuples(st.sampled_from(["", "\n", "\r\n\t", "\n" + " " * 9]), st.sampled_from(["", "  ", "\t" * 17]))


@given(st.data(), PLAIN, GAPS, st.integers(1, 2000), st.integers(0, 2))
def test_plain_blocks_are_read_as_the_parser_reads_them(tmp_path_factory, data, traces, gaps, block, edits):
    """Also with small edits, which give the same words and line, or leave the log right in another way."""
    text = plain_log(traces, *gaps)
    for _ in range(edits):
        at = data.draw(st.integers(len(HEAD), len(text)))
        put = data.draw(
            st.sampled_from(["", " ", "\n", "<", ">", "/", '"', "'", "&", "\0", "é", "x", "<!-- x -->", "<event>"])
        )
        text = text[:at] + put + text[at + data.draw(st.integers(0, 3)) :]
    path = tmp_path_factory.mktemp("plain") / "a.xes"
    path.write_text(text, encoding="utf-8", newline="")
    used = []

    def spy(*given):
        used.append(traces_of(*given))
        return used[-1]

    traces_of = _xes_plain.traces_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_xes_plain, "traces_of", spy)
        quick = outcome(path, block)
        patch.setattr(_xes_plain, "traces_of", lambda *given: None)
        assert quick == outcome(path, block)
    if not edits:
        assert used
        assert all(used), "a plain log was not taken for one"


@pytest.mark.parametrize(
    "odd",
    [
        '<string key="k" value="a\tb"/>',
        '<string key="k" value="a\nb\rc"/>',
        '<string key="k" value="a\1b"/>',
        '<string key="k" value="1"/><string key="k" value="2"/>',
        '<int key="k" value="1"/><string key="k" value="2"/>',
        '<string key="k" value="&#65;"/>',
        '<string key="a&amp;b" value="1"/>',
        "<string key='k' value='1'/>",
        '<string value="1" key="k"/>',
        '<string key="k" value="1"></string>',
        '<list key="k"/>',
        '<string key="k"/>',
        '<strinG key="k" value="1"/>',
        '<id key="" value=""/>',
        '<id key="k" value="\ufffe"/>',
        "</event></trace><trace><event>" + '<string key="concept:name" value="new"/>',
        "text",
        "<!-- <trace> </trace> -->",
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(tmp_path, monkeypatch, odd):
    one = '<event><string key="concept:name" value="a"/>{}</event>\n'
    path = tmp_path / "a.xes"
    path.write_text(
        f"{HEAD}<trace>{one.format('')}{one.format(odd)}{one.format('')}</trace></log>", "utf-8", newline=""
    )
    quick = outcome(path, 1 << 20)
    monkeypatch.setattr(_xes_plain, "traces_of", lambda *given: None)
    assert quick == outcome(path, 1 << 20)


def test_a_long_key_beside_short_ones_at_the_end_of_a_block(tmp_path):
    """Found by fuzzing: keys were compared beyond the end of the block."""
    long = "concept>name" + "+" * 100
    events = [f'<event><string key="{long}" value="1"/></event>', '<event><string key="b" value="2"/></event>']
    (tmp_path / "log.xes").write_text(f"<log><trace>{''.join(events)}</trace></log>")
    with pytest.raises(SeqloomError, match="an event has no b"):
        Xes().read(tmp_path / "log.xes", Columns(event="b"))


def test_a_block_without_any_attribute():
    """Found by fuzzing: there are no places of values."""
    found = _xes_plain.traces_of(b"<trace><event></event><event></event></trace>", 0)
    assert found is not None
    assert found.columns == {}
