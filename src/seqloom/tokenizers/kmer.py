"""k-mers: words of k characters, overlapping or not.

    windows start at 0, s, 2 s, ... until every character is covered; only the last may be shorter than k

Stride 1 gives the n - k + 1 overlapping k-mers, stride k cuts the sequence into words. Up to stride k, decoding is
the exact inverse. ``canonical`` takes the lesser of a k-mer and its reverse complement: the two strands of DNA are one.
RNA is then read as DNA (U as T), so that every word has one complement.
Shapes: L characters, M windows, A letters of the alphabet. Code of a window: its letters as digits of base A + 1.
Source: Ji et al., "DNABERT", 2021, doi:10.1093/bioinformatics/btab083, section 2.1 (overlapping k-mers); Marçais and
Kingsford, "Jellyfish", 2011, doi:10.1093/bioinformatics/btr011 (canonical k-mers).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.core.specials import SPECIALS
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.data.vocabulary import Vocabulary
from seqloom.tokenizers._base import UNKNOWN, Tokenizer, ordinary
from seqloom.tokenizers.characters import character_offsets, code_points

_COMPLEMENT = str.maketrans("ACGTacgtRYKMBVDHrykmbvdh", "TGCAtgcaYRMKVBHDyrmkvbhd")
_AS_DNA = {"U": "T", "u": "t"}
_BLOCK = 1 << 20  # windows at a time


class Kmer(Tokenizer):
    """One id a window of ``k`` characters."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Tokenizer.Config):
        """Size and step of the windows."""

        k: int = 6
        """Characters of a window."""
        stride: int = 1
        """Characters from one window to the next: 1 = overlapping, k = words."""
        canonical: bool = False
        """Count a k-mer and its reverse complement as one (DNA, or RNA read as DNA); decoding is no inverse then."""
        minimum: int = 1
        """k-mers that were seen fewer times are unknown."""

        def __post_init__(self) -> None:
            """Refuse windows that miss characters."""
            if not 1 <= self.stride <= self.k:
                raise ConfigError(f"stride {self.stride} must lie between 1 and k = {self.k}: else characters are lost")

    def decode(self, ids: Any) -> str:
        """Text of the ids: each window gives what its predecessor has not shown."""
        k, shared = self.config.k, self.config.k - self.config.stride
        words = [UNKNOWN * k if id == SPECIALS.unk else self.vocabulary.symbol(id) for id in ordinary(ids).tolist()]
        return "".join(word if number == 0 else word[shared:] for number, word in enumerate(words))

    def _count(self, piece: Sequences) -> dict[str, int]:
        points, offsets = _points(piece)
        alphabet = _Alphabet({chr(point) for point in np.unique(points).tolist()}, self.config)
        totals: dict[int, int] = {}
        for codes in self._codes(points, offsets, alphabet):
            found, counts = np.unique(codes, return_counts=True)
            for code, count in zip(found.tolist(), counts.tolist(), strict=True):
                totals[code] = totals.get(code, 0) + count
        return {alphabet.word(code): count for code, count in totals.items()}

    def _learn(self, vocabulary: Vocabulary) -> None:
        super()._learn(vocabulary)
        self._alphabet = _Alphabet({letter for symbol in vocabulary.symbols for letter in symbol}, self.config)
        codes = np.array([self._alphabet.code(symbol) for symbol in vocabulary.symbols], dtype=np.int64)
        order = np.argsort(codes)
        self._known, self._id_of_known = codes[order], (order + SPECIALS.count).astype(np.int32)

    def _encode(self, piece: Sequences) -> Ragged:
        points, offsets = _points(piece)
        parts = []
        for codes in self._codes(points, offsets, self._alphabet):
            at = np.minimum(np.searchsorted(self._known, codes), max(len(self._known) - 1, 0))
            hit = self._known[at] == codes if len(self._known) else np.zeros(len(codes), bool)
            parts.append(np.where(hit, self._id_of_known[at] if len(self._known) else 0, SPECIALS.unk).astype(np.int32))
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return Ragged(ids, np.concatenate([[0], np.cumsum(self._windows(np.diff(offsets)))]))

    def _windows(self, lengths: np.ndarray) -> np.ndarray:
        beyond = -(-np.maximum(lengths - self.config.k, 0) // self.config.stride)
        return np.where(lengths > 0, 1 + beyond, 0)

    def _codes(self, points: np.ndarray, offsets: np.ndarray, alphabet: "_Alphabet") -> Iterator[np.ndarray]:
        """Code of every window, block by block; -1 where a letter is unknown."""
        digits = alphabet.digits(points)
        count = self._windows(np.diff(offsets))
        ends_of_counts = np.cumsum(count)
        for begin in range(0, int(count.sum()), _BLOCK):
            window = np.arange(begin, min(begin + _BLOCK, int(ends_of_counts[-1])))
            row = np.searchsorted(ends_of_counts, window, side="right")
            start = offsets[row] + (window - (ends_of_counts - count)[row]) * self.config.stride
            stop = np.minimum(start + self.config.k, offsets[row + 1])
            codes = alphabet.pack(digits, start, stop)
            if self.config.canonical:
                codes = np.minimum(codes, alphabet.pack(alphabet.complement[digits], start, stop, backwards=True))
            yield codes


class _Alphabet:
    """Letters as digits 1 .. A; 0 = no letter (behind a short window), A + 1 = unknown."""

    def __init__(self, letters: set[str], config: Any) -> None:
        self.same = {ord(letter): ord(dna) for letter, dna in _AS_DNA.items()} if config.canonical else {}
        if config.canonical:
            letters = {_AS_DNA.get(letter, letter) for letter in letters}
            letters |= {letter.translate(_COMPLEMENT) for letter in letters}
        self.letters = np.array(sorted(map(ord, letters)), dtype=np.uint32)
        self.k, self.base = config.k, len(letters) + 1
        if self.k * np.log2(max(self.base, 2)) >= 63:
            raise ConfigError(f"{len(letters)} letters make too many words of {self.k}: lower k")
        self.digit_of = {chr(letter): digit for digit, letter in enumerate(self.letters.tolist(), 1)}
        unknown = self.base
        mirrored = [self.digit_of.get(letter.translate(_COMPLEMENT), unknown) for letter in self.digit_of]
        self.complement = np.array([0, *mirrored, unknown], dtype=np.int64)

    def digits(self, points: np.ndarray) -> np.ndarray:
        for point, same in self.same.items():
            points = np.where(points == point, points.dtype.type(same), points)
        at = np.searchsorted(self.letters, points)
        near = np.minimum(at, max(len(self.letters) - 1, 0))
        known = self.letters[near] == points if len(self.letters) else np.zeros(len(points), bool)
        return np.where(known, near + 1, self.base)

    def pack(self, digits: np.ndarray, start: np.ndarray, stop: np.ndarray, *, backwards: bool = False) -> np.ndarray:
        codes, broken = np.zeros(len(start), np.int64), np.zeros(len(start), bool)
        for step in range(self.k):
            at = stop - 1 - step if backwards else start + step
            inside = (at >= start) & (at < stop)
            digit = np.where(inside, digits[np.where(inside, at, start)], 0)
            broken |= digit == self.base
            codes = codes * self.base + digit
        return np.where(broken, -1, codes)

    def code(self, word: str) -> int:
        code = 0
        for digit in [self.digit_of[letter] for letter in word] + [0] * (self.k - len(word)):
            code = code * self.base + digit
        return code

    def word(self, code: int) -> str:
        letters = []
        while code:
            code, digit = divmod(code, self.base)
            letters += [chr(self.letters[digit - 1])] if digit else []
        return "".join(reversed(letters))


def _points(piece: Sequences) -> tuple[np.ndarray, np.ndarray]:
    data, offsets = piece.bytes()
    parts = list(code_points(data, offsets))
    return (np.concatenate(parts) if parts else np.zeros(0, np.uint8)), character_offsets(data, offsets)
