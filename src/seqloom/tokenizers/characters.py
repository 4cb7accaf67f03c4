"""Characters: one id a Unicode code point.

    UTF-8 block -> UTF-32 view -> one lookup table

Source: Sutskever, Martens and Hinton, "Generating text with recurrent neural networks", 2011, section 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqloom.core.specials import SPECIALS
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.data.vocabulary import Vocabulary
from seqloom.tokenizers._base import UNKNOWN, Tokenizer, ordinary

_POINTS = 0x110000
_BLOCK = 1 << 22  # bytes at a time: their UTF-32 form is four times as large


class Characters(Tokenizer):
    """One id a character: the plain choice for DNA, proteins and text in one script."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Tokenizer.Config):
        """Options of the vocabulary."""

        minimum: int = 1
        """Characters that were seen fewer times are unknown."""

    def decode(self, ids: Any) -> str:
        """Text of the ids; <unk> shows as the replacement character."""
        return self._point_of_id[ordinary(ids)].tobytes().decode("utf-32-le", "replace")

    def _count(self, piece: Sequences) -> dict[str, int]:
        counts = np.zeros(_POINTS, dtype=np.int64)
        for points in code_points(*piece.bytes()):
            seen = np.bincount(points)
            counts[: len(seen)] += seen
        found = np.flatnonzero(counts)
        return {chr(point): count for point, count in zip(found.tolist(), counts[found].tolist(), strict=True)}

    def _learn(self, vocabulary: Vocabulary) -> None:
        super()._learn(vocabulary)
        points = np.array([ord(symbol) for symbol in vocabulary.symbols], dtype="<u4")
        self._point_of_id = np.concatenate([np.full(SPECIALS.count, ord(UNKNOWN), "<u4"), points])
        self._id_of_point = np.full(int(points.max(initial=255)) + 2, SPECIALS.unk, dtype=np.int32)
        self._id_of_point[points] = np.arange(SPECIALS.count, vocabulary.size, dtype=np.int32)

    def _encode(self, piece: Sequences) -> Ragged:
        data, offsets = piece.bytes()
        parts = [self._look_up(points) for points in code_points(data, offsets)]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return Ragged(ids, character_offsets(data, offsets))

    def _look_up(self, points: np.ndarray) -> np.ndarray:
        if points.dtype == np.uint8:
            return self._id_of_point[points]
        return self._id_of_point[np.minimum(points, len(self._id_of_point) - 1)]  # the last entry is unknown


def code_points(data: np.ndarray, offsets: np.ndarray) -> Iterator[np.ndarray]:
    """Code points of UTF-8 text, block by block; a block ends where a character does."""
    start, end = int(offsets[0]), int(offsets[-1])
    while start < end:
        stop = min(start + _BLOCK, end)
        while stop < end and data[stop] & 0xC0 == 0x80:
            stop += 1
        block = data[start:stop]
        yield block if block.max() < 0x80 else np.frombuffer(block.tobytes().decode("utf-8").encode("utf-32-le"), "<u4")
        start = stop


def character_offsets(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Offsets counted in characters, from 0, of offsets counted in bytes of UTF-8."""
    begins = (data[offsets[0] : offsets[-1]] & 0xC0) != 0x80
    if begins.all():
        return offsets - offsets[0]
    before = np.concatenate([[0], np.cumsum(begins)])
    return before[offsets - offsets[0]]
