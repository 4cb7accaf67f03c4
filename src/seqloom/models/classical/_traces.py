"""A stream as a log: whole traces of its most frequent symbols, and how often each was seen.

Source: Leemans, Fahland and van der Aalst, 2013, doi:10.1007/978-3-642-38697-8_17, section 2.
"""

from collections import Counter

import numpy as np

from seqloom.core.specials import SPECIALS
from seqloom.models.classical._cuts import Log
from seqloom.models.classical._stream import Stream


def traces(stream: Stream, symbols: int) -> Log:
    """Traces and their counts. Windows that follow each other are put together again.

    What still lacks a beginning or an end says nothing about those, and is left out where whole traces are there.
    """
    ends = (SPECIALS.bos, SPECIALS.eos)
    count_V = np.bincount(stream.tokens)
    count_V[[end for end in ends if end < len(count_V)]] = 0
    frequent_V = np.zeros(len(count_V), bool)
    frequent_V[np.argsort(-count_V, kind="stable")[:symbols]] = True
    frequent_V &= count_V > 0
    whole, parts = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
    rows = _joined(stream)
    for row in rows:
        trace = tuple(row[frequent_V[row]].tolist())
        (whole if row[0] == ends[0] and row[-1] == ends[1] else parts)[trace] += 1
    return whole or parts


def _joined(stream: Stream) -> list[np.ndarray]:
    rows: list[list[np.ndarray]] = []
    for begin, end in zip(stream.offsets[:-1], stream.offsets[1:], strict=True):
        row = stream.tokens[begin:end]
        if not len(row):
            continue
        last = rows[-1][-1][-1] if rows else SPECIALS.eos
        if row[0] != SPECIALS.bos and last != SPECIALS.eos and row[0] == last:
            rows[-1].append(row[1:])
        else:
            rows.append([row])
        rows[-1] = [piece for piece in rows[-1] if len(piece)]
    return [np.concatenate(row) for row in rows]
