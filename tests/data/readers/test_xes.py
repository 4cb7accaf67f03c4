import datetime as dt
import gzip
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import DataError, SeqloomError
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers.xes import Xes
from seqloom.data.reading import read, reader_of, sniff
from seqloom.data.sequences import Sequences
from seqloom.testing.readers import check_reader

HEAD = '<?xml version="1.0" encoding="UTF-8" ?>\n<log xes.version="1.0">\n'
WHEN = dt.datetime(2024, 3, 31, 17, 5)
LOG = (
    HEAD
    + """<extension name="Concept" prefix="concept" uri="http://www.xes-standard.org/concept.xesext"/>
<global scope="event"><string key="concept:name" value="none"/></global>
<classifier name="Activity" keys="concept:name lifecycle:transition"/>
<string key="creator" value="hand"/>
<trace>
  <string key="concept:name" value="c1"/>
  <string key="outcome" value="good"/>
  <event>
    <string key="concept:name" value="pay &amp; go"/>
    <date key="time:timestamp" value="2024-03-31T17:05:00.500+02:00"/>
    <float key="cost" value="2.5"/>
    <string key="lifecycle:transition" value="complete"/>
    <list key="parts"><string key="concept:name" value="hidden"/></list>
  </event>
  <event>
    <string value="ask" key="concept:name"><int key="cost" value="99"/></string>
    <date key="time:timestamp" value="2024-03-31T15:04:00Z"/>
    <string key="org:resource" value="ann"/>
    <string key="lifecycle:transition" value="start"></string>
  </event>
</trace>
<trace>
  <string key="outcome" value="bad"/>
  <event>
    <string key="concept:name" value="ask"/>
    <date key="time:timestamp" value="2024-04-01T00:00:00Z"/>
    <int key="cost" value="1"/>
    <string key="lifecycle:transition" value="complete"/>
  </event>
</trace>
</log>
"""
)


def write_example(path, events, traces=10):
    """A log with four attributes an event, ``events`` of them, in traces of ten."""
    with path.open("w") as file:
        file.write(HEAD)
        for case in range(events // traces):
            file.write(f'<trace>\n<string key="concept:name" value="case {case}"/>\n')
            for step in range(traces):
                file.write(
                    f'<event>\n<string key="concept:name" value="act {(case + step) % 17}"/>\n'
                    f'<date key="time:timestamp" value="2024-01-{1 + case % 28:02}T10:{step:02}:07.000+02:00"/>\n'
                    f'<string key="org:resource" value="user {case % 50}"/>\n'
                    f'<string key="lifecycle:transition" value="complete"/>\n</event>\n'
                )
            file.write("</trace>\n")
        file.write("</log>\n")


def file_of(tmp_path, text, name="log.xes", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def log_of(events):
    return HEAD + '<trace><string key="concept:name" value="c"/>\n' + events + "</trace></log>"


def event(name="a", rest=""):
    return f'<event><string key="concept:name" value="{name}"/>{rest}</event>\n'


def test_contract(tmp_path):
    events = [["a", "b & c", "line\nend"], ["<ä>"], ["c"], ["a", '"']]
    times = [[WHEN + dt.timedelta(hours=i, microseconds=i) for i in range(len(items))] for items in events]
    log = Sequences.of(events, ids=["007", "x", "y", "z"], times=times, labels=list("uvuv"), groups=list("gghh"))
    check_reader(Xes(), tmp_path, [log], suffix=".xes", columns=Columns(label="label", group="group"))
    check_reader(
        Xes(), tmp_path, [Sequences.of(events, times=[[0.5] * len(e) for e in events])], columns=Columns(time="time")
    )
    check_reader(Xes(), tmp_path, [Sequences.of([*events, []])])


def test_a_log_is_read_as_the_standard_says(tmp_path):
    path = file_of(tmp_path, LOG)
    log = read(path, columns=Columns(label="outcome"))
    assert (log.ids, log.labels, log.rows.tolist()) == (["c1", "2"], ["good", "bad"], [7, 24])
    assert [log.sequence(i) for i in range(2)] == [["ask", "pay & go"], ["ask"]]
    assert log.start_times.tolist() == [dt.datetime(2024, 3, 31, 15, 4), dt.datetime(2024, 4, 1)]
    assert log.channels == ("cost", "lifecycle:transition", "org:resource")
    np.testing.assert_array_equal(log.channel("cost").flat, [np.nan, 2.5, 1])
    names = log.channel_symbols("org:resource")
    assert [names[code] for code in log.channel("org:resource").flat] == ["ann", "", ""]
    both = read(path, columns=Columns(event="concept:name,lifecycle:transition"))
    assert both.sequence(0) == ["ask+start", "pay & go+complete"]
    notes = " ".join(sniff(path).notes)
    for words in (
        "--event concept:name,lifecycle:transition tells",
        "(complete, start)",
        "'Activity'",
        "outcome",
        "--time",
    ):
        assert words in notes


def by_element_tree(path):
    """The same log by the standard library's tree."""
    out = {}
    for number, trace in enumerate(ET.parse(path).getroot().findall("trace"), 1):
        own = {child.get("key"): child.get("value") for child in trace if child.tag != "event"}
        events = [{child.get("key"): child.get("value") for child in item} for item in trace.findall("event")]
        out[own.get("concept:name", str(number))] = events
    return out


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=4)
EVENTS = st.lists(st.tuples(TEXT, st.integers(0, 3), st.none() | st.integers(-5, 5), st.none() | TEXT), max_size=5)


@given(st.lists(EVENTS, min_size=1, max_size=5), st.integers(1, 300), st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]))
def test_traces_are_those_of_an_xml_tree_in_blocks_of_any_size(tmp_path_factory, traces, block, encoding):
    from xml.sax.saxutils import quoteattr as q

    text = HEAD.replace("UTF-8", "UTF-16" if encoding == "utf-16" else "UTF-8")
    for number, events in enumerate(traces):
        text += f'<trace><string key="concept:name" value="t{number}"/>'
        for name, day, cost, who in events:
            text += f'<event><date key="time:timestamp" value="2024-01-0{day + 1}"/>'
            text += f'<string key="concept:name" value={q(name)}/>'
            text += "" if cost is None else f'<int key="cost" value="{cost}"/>'
            text += ("" if who is None else f'<string key="who" value={q(who)}/>') + "</event>\n"
        text += "</trace>\n"
    path = file_of(tmp_path_factory.mktemp("xes"), text + "</log>", encoding=encoding)
    parts = list(Xes().batches(Source(path), Columns(), block=block))
    log = Sequences.join(parts)
    want = {
        case: sorted(items, key=lambda item: item["time:timestamp"]) for case, items in by_element_tree(path).items()
    }
    assert {log.ids[i]: log.sequence(i) for i in range(len(log))} == {
        case: [item["concept:name"] for item in items] for case, items in want.items()
    }
    flat = [item for items in want.values() for item in items]
    for key in ("cost", "who"):
        assert (key in log.channels) == any(key in item for item in flat)
    if "cost" in log.channels:
        numbers = [float(item.get("cost", "nan")) for item in flat]
        np.testing.assert_array_equal(log.channel("cost").flat, numbers)
    if "who" in log.channels:
        names = log.channel_symbols("who")
        assert [names[code] for code in log.channel("who").flat] == [item.get("who", "") for item in flat]


def test_a_channel_of_a_later_block_is_known_from_the_first_on(tmp_path):
    """Numbers at first, strings later: strings everywhere, whatever the blocks."""
    path = file_of(
        tmp_path,
        HEAD
        + '<trace><event><string key="concept:name" value="a"/><int key="k" value="1"/></event></trace>\n' * 3
        + '<trace><event><string key="concept:name" value="a"/><string key="k" value="x"/>'
        + '<id key="n" value="9"/></event></trace>\n'
        + "</log>",
    )
    for block in (1, 50, 1 << 20):
        log = Sequences.join(list(Xes().batches(Source(path), Columns(), block=block)))
        assert log.channels == ("k", "n")
        assert log.channel_symbols("k") == ["1", "x"]
        assert log.channel_symbols("n") == ["", "9"]


@pytest.mark.parametrize(
    ("encoding", "name"), [("utf-16", "UTF-16"), ("latin-1", "ISO-8859-1"), ("cp1252", "windows-1252")]
)
def test_other_encodings_are_read_as_they_are_declared(tmp_path, encoding, name):
    path = file_of(tmp_path, log_of(event("café")).replace("UTF-8", name), "log", encoding)
    assert read(path).sequence(0) == ["café"]


def test_times_may_have_a_zone_or_none(tmp_path):
    written = ["2024-03-31T10:00:00", "2024-03-31T11:00:00.1234567+02:00", "2024-03-31T08:59:59.5Z"]
    events = "".join(event(f"e{i}", f'<date key="time:timestamp" value="{when}"/>') for i, when in enumerate(written))
    log = read(file_of(tmp_path, log_of(events)))
    assert log.sequence(0) == ["e2", "e1", "e0"]
    assert log.end_times.tolist() == [dt.datetime(2024, 3, 31, 10)]


def test_prefixes_of_elements_are_understood(tmp_path):
    text = LOG.replace("</", "</x:").replace("<", "<x:").replace("<x:/x:", "</x:").replace("<x:?", "<?")
    text = text.replace("<x:log", '<x:log xmlns:x="http://www.xes-standard.org/"')
    assert read(file_of(tmp_path, text)).sequence(0) == ["ask", "pay & go"]


BOMB = '<!DOCTYPE log [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
ATTACKS = {
    "billion laughs": HEAD.replace("<log", BOMB + "]><log") + event("&i;") + "</log>",
    "external entity": HEAD.replace("<log", '<!DOCTYPE log [<!ENTITY x SYSTEM "file:///etc/passwd">]><log')
    + event("&x;"),
    "parameter entity": HEAD.replace("<log", '<!DOCTYPE log [<!ENTITY % x SYSTEM "http://localhost/x"> %x;]><log'),
    "external definition": HEAD.replace("<log", '<!DOCTYPE log SYSTEM "http://localhost/log.dtd"><log'),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_definitions_are_refused_at_once(tmp_path, attack):
    began = time.perf_counter()
    with pytest.raises(DataError, match=r"row 2: holds a document type definition.*Remove it"):
        read(file_of(tmp_path, ATTACKS[attack]))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        (LOG[:-20], {}, "row 3[0-9]: the log is cut short"),
        (LOG.replace("<trace>", "<trac>", 1), {}, "row 23: is no well-formed XML: mismatched tag"),
        (LOG.replace("&amp;", "&"), {}, "row 11: is no well-formed XML"),
        (LOG.replace("&amp;", "&other;"), {}, "row 11: is no well-formed XML: undefined entity"),
        (log_of("<list key='l'>" + "<a>" * 200), {}, "row 4: elements are nested more than 100 deep"),
        (log_of(event(rest="<list key='l'>" + "<a>" * 200)), {}, "row 4: elements are nested more than 100 deep"),
        (log_of(event() + "<event></event>"), {}, "row 5: an event has no concept:name"),
        (
            log_of(event(rest='<int key="k" value="1"/>') + event(rest='<int key="k" value="x"/>')),
            {},
            "row 5: k is no number",
        ),
        (LOG.replace("2024-04-01", "2024-13-01"), {}, "row 26: is no time.*found '2024-13-01T00:00:00Z'"),
        (
            LOG.replace('<date key="time:timestamp" value="2024-04-01T00:00:00Z"/>', ""),
            {},
            "row 26: an event has no time:time",
        ),
        (LOG, {"event": "page"}, "row 10: the first events have no attribute 'page'.*--event: concept:name, time:time"),
        (LOG, {"label": "page"}, "row 7: a trace has no page.*--label; this trace has concept:name, outcome"),
        (LOG, {"id": "concept:name"}, "row 24: a trace has no concept:name"),
        (LOG, {"case": "x"}, "--case means nothing"),
        (HEAD + event() + "</log>", {}, "row 3: an event lies outside of every trace"),
        (HEAD + "</log>", {}, "holds no sequence"),
        (log_of(event(rest='<string value="x"/>')), {}, "row 4: an attribute has no key"),
        (HEAD.replace("log", "html") + "</html>", {}, "row 2: an XES file is one <log>.*found '<html>'"),
        (HEAD.replace("UTF-8", "UTF-7") + "</log>", {}, "row 1: its encoding is not known|row 1: is no well-formed"),
        (
            log_of("".join(event(rest=f'<int key="k{i}" value="1"/>') for i in range(600))),
            {},
            "row 503: .*more than 500 diff",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path, text, columns, words):
    path = file_of(tmp_path, text)
    with pytest.raises(DataError, match=words):
        read(path, columns=Columns(**columns))
    with pytest.raises(DataError, match=words):
        list(Xes().batches(Source(path), Columns(**columns), block=99)) or read(path)


def error_of(path):
    """The words of the error that a file is refused with; None where it is read."""
    try:
        read(path)
    except SeqloomError as error:
        return str(error)
    return None


@given(st.data())
def test_broken_bytes_are_sequences_or_an_error_with_a_mend(tmp_path_factory, data):
    whole = LOG.encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 900)) :]
    path = tmp_path_factory.mktemp("broken") / "a.xes"
    path.write_bytes(broken)
    words = error_of(path)
    assert words is None or str(path) in words


def test_other_xml_is_not_taken_for_a_log(tmp_path):
    assert Xes().sniff(Source(file_of(tmp_path, HEAD.replace("log", "html"), "a.xml"))) == 0
    assert Xes().sniff(Source(file_of(tmp_path, LOG, "a.xml"))) == 1
    packed = tmp_path / "a.xes.gz"
    packed.write_bytes(gzip.compress(LOG.encode()))
    assert isinstance(reader_of(Source(packed)), Xes)


def test_memory_is_bounded_by_the_block(tmp_path):
    """Allocations of Python for thirty small blocks stay below those for the whole log."""
    import tracemalloc

    path = tmp_path / "a.xes"
    write_example(path, 6000)
    peaks = []
    for block in (1 << 15, 1 << 26):
        tracemalloc.start()
        assert sum(len(part) for part in Xes().batches(Source(path), Columns(), block=block)) == 600
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 0.5 * peaks[1]


def test_what_xml_cannot_hold_is_refused(tmp_path):
    for sequences, words in ((Sequences.of(["text"]), "holds events"), (Sequences.of([["\0"]]), "cannot hold this")):
        with pytest.raises(DataError, match=words):
            Xes().write(sequences, tmp_path / "a.xes")
