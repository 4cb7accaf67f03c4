"""Bytes of UTF-8: 256 symbols, nothing is ever unknown.

A byte's symbol is its ASCII character where it has a visible one, else ``0x0A`` and the like.
Source: Xue et al., "ByT5: towards a token-free future", 2022, arXiv:2105.13626, section 3.
"""

from typing import Any

import numpy as np

from seqloom.core.specials import SPECIALS
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.data.vocabulary import Vocabulary
from seqloom.tokenizers._base import Tokenizer, ordinary

_NAMES = tuple(chr(byte) if 0x21 <= byte < 0x7F else f"0x{byte:02X}" for byte in range(256))
_BYTE_OF = {name: byte for byte, name in enumerate(_NAMES)}


class Bytes(Tokenizer):
    """One id a byte. All 256 are in the vocabulary, those that were never seen with count 0."""

    def decode(self, ids: Any) -> str:
        """Text of the bytes; a broken character, or an <unk>, shows as the replacement character."""
        known = ordinary(ids)
        byte_N = self._byte_of_id[known]
        pieces = np.split(byte_N, np.flatnonzero(known == SPECIALS.unk))
        return "\N{REPLACEMENT CHARACTER}".join(
            (piece if number == 0 else piece[1:]).astype(np.uint8).tobytes().decode("utf-8", "replace")
            for number, piece in enumerate(pieces)
        )

    def _count(self, piece: Sequences) -> dict[str, int]:
        data, offsets = piece.bytes()
        counts = np.bincount(data[offsets[0] : offsets[-1]], minlength=256)
        return dict(zip(_NAMES, counts.tolist(), strict=True))

    def _choose(self, counts: dict[str, int]) -> Vocabulary:
        return Vocabulary.of({name: counts.get(name, 0) for name in _NAMES})

    def _learn(self, vocabulary: Vocabulary) -> None:
        super()._learn(vocabulary)
        self._id_of_byte = vocabulary.ids(_NAMES)
        bytes_of = [_BYTE_OF[symbol] for symbol in vocabulary.symbols]
        self._byte_of_id = np.array([0] * SPECIALS.count + bytes_of, dtype=np.uint8)

    def _encode(self, piece: Sequences) -> Ragged:
        data, offsets = piece.bytes()
        return Ragged(self._id_of_byte[data[offsets[0] : offsets[-1]]], offsets - offsets[0])
