"""Symbols: one id an event, an item or a word.

Events are already coded in the data's dictionary: one lookup a code. Text is split at white space.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.tokenizers._base import Tokenizer, ordinary

_BLOCK = 1 << 20


class Symbols(Tokenizer):
    """One id a symbol: the plain choice for event logs, click streams and words."""

    reads = ("symbols", "text")
    joiner = " "

    @dataclass(frozen=True, kw_only=True)
    class Config(Tokenizer.Config):
        """Options of the vocabulary."""

        minimum: int = 1
        """Symbols that were seen fewer times are unknown."""

    def decode(self, ids: Any) -> list[str]:
        """The symbols; <unk> shows by its name."""
        return [self.vocabulary.symbol(id) for id in ordinary(ids).tolist()]

    def _count(self, piece: Sequences) -> dict[str, int]:
        codes, symbols = _coded(piece)
        flat, counts = codes.flat, np.zeros(len(symbols), np.int64)
        for start in range(0, len(flat), _BLOCK):  # numpy counts copies of 64 bits
            counts += np.bincount(flat[start : start + _BLOCK], minlength=len(symbols))
        return {symbol: count for symbol, count in zip(symbols, counts.tolist(), strict=True) if count}

    def _encode(self, piece: Sequences) -> Ragged:
        codes, symbols = _coded(piece)
        id_of_code = self.vocabulary.ids(symbols)
        return Ragged(id_of_code[codes.flat], codes.offsets - codes.offsets[0])


def _coded(piece: Sequences) -> tuple[Ragged, list[str]]:
    """Codes and what they stand for; the words of a text are coded on the way."""
    if piece.kind == "symbols":
        return piece.symbols()
    import pyarrow.compute as pc

    words = pc.utf8_split_whitespace(piece.table["sequence"].chunk(0))
    offsets = words.offsets.to_numpy().astype(np.int64)
    filled = pc.greater(pc.binary_length(words.values), 0)  # white space at an end leaves an empty word there
    kept = np.concatenate([[0], np.cumsum(filled.to_numpy(zero_copy_only=False))])
    flat, offsets = words.values.filter(filled).dictionary_encode(), kept[offsets]
    return Ragged(flat.indices.to_numpy().astype(np.int32), offsets), flat.dictionary.to_pylist()
