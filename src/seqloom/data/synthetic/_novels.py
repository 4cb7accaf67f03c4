"""Documents of one novel each, made of the passages of the sample ``novels``, which three novels share evenly.

The last tenth of each novel is the test part, the tenth before it validates: no passage is in two parts. Words that
stand with a capital letter alone are names for all that is known here; a name tells the novel by itself, so a document
shows ``_`` instead. The other sample, ``austen``, was cut by sentences, not by paragraphs: its punctuation would tell
it, and it stays out.
"""

import csv
import re
from functools import cache

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.core.specials import SPECIALS
from seqloom.data import samples
from seqloom.data.synthetic._base import Part

FIRST = SPECIALS.count  # the id of byte 0
NOVELS = ("emma", "pride", "sense")
BYTES = 256
HEAD = 60  # bytes from which a passage is known; none has fewer
LONGEST = 4096  # bytes that the passages of every novel and part hold
_WORD = re.compile(r"[A-Za-z]+")
_PARTS: dict[str, tuple[float, float]] = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}


@cache
def passages(part: Part, names: bool) -> tuple[tuple[bytes, ...], ...]:
    """The passages of each novel that are in a part, in the order of the novel."""
    low, high = _PARTS[part]
    return tuple(texts[round(low * len(texts)) : round(high * len(texts))] for texts in _whole(names))


def document(rng: np.random.Generator, pool: tuple[bytes, ...], length: int) -> tuple[np.ndarray, tuple[bytes, ...]]:
    """Passages in a random order, cut at ``length`` bytes: as ids, and the passages that were not used."""
    order, text, used = rng.permutation(len(pool)), b"", 0
    while len(text) < length:
        if used == len(pool):
            raise ConfigError(f"the passages hold no further document of {length} bytes")
        text += b" " * bool(text) + pool[order[used]]
        used += 1
    ids = FIRST + np.frombuffer(text[:length], np.uint8).astype(np.int32)
    return ids, tuple(pool[i] for i in order[used:])


def novel_of(ids: np.ndarray, names: bool) -> int:
    """The novel whose passage a document begins with."""
    return _known(names)[(ids[:HEAD].astype(np.int64) - FIRST).astype(np.uint8).tobytes()]


@cache
def _known(names: bool) -> dict[bytes, int]:
    return {text[:HEAD]: number for number, texts in enumerate(_whole(names)) for text in texts}


@cache
def _whole(names: bool) -> tuple[tuple[bytes, ...], ...]:
    with samples.path("novels").open(encoding="utf-8", newline="") as file:
        rows = [(row["label"], row["text"]) for row in csv.DictReader(file)]
    common = {word for _, text in rows for word in _WORD.findall(text) if word.islower()}

    def shown(text: str) -> bytes:
        masked = _WORD.sub(lambda found: found[0] if _plain(found[0], common) else "_", text)
        return (text if names else masked).encode()

    return tuple(tuple(shown(text) for label, text in rows if label == novel) for novel in NOVELS)


def _plain(word: str, common: set[str]) -> bool:
    """Whether a word is no name: a single letter, in lower case here, or in lower case elsewhere."""
    return len(word) == 1 or word.lower() in common
