"""The one interface of every tokenizer: learn a vocabulary, encode whole data sets, decode, save as JSON.

    tokenizer.fit(train); tokenizer.encode(test) -> Ragged of ids, without bos and eos; decode(ids) -> the symbols

A tokenizer that splits text into pieces (``joiner`` "") decodes to a string, one that reads symbols to a list.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from seqloom.core.component import FORMAT, Component
from seqloom.core.errors import ConfigError
from seqloom.core.specials import SPECIALS
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.data.vocabulary import Vocabulary

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class Tokenizer(Component):
    """Base of every tokenizer. Subclasses write ``_count`` and ``_encode`` for one block, and ``decode``."""

    reads: ClassVar[tuple[str, ...]] = ("text",)
    """Kinds of sequences that it can read."""
    joiner: ClassVar[str] = ""
    """What stands between two symbols when they are shown as text."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a tokenizer."""

    def __init__(self, config: Config | None = None) -> None:
        """Keep the options; nothing is learnt yet."""
        self.config: Any = config if config is not None else type(self).Config()
        self._vocabulary: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """What ``fit`` learnt."""
        if self._vocabulary is None:
            raise ConfigError(f"this {type(self).__name__} tokenizer has learnt nothing yet: call fit first")
        return self._vocabulary

    def fit(self, sequences: Any) -> Vocabulary:
        """Learn the vocabulary of the training part; anything that ``Sequences.of`` takes will do."""
        counts: dict[str, int] = {}
        for piece in self._pieces(sequences):
            for symbol, count in self._count(piece).items():
                counts[symbol] = counts.get(symbol, 0) + count
        self._learn(self._choose(counts))
        return self.vocabulary

    def encode(self, sequences: Any) -> Ragged:
        """Ids of every sequence, int32; what was never seen is <unk>."""
        self.vocabulary  # noqa: B018  (raises before any work where nothing is learnt)
        parts = [self._encode(piece) for piece in self._pieces(sequences)]
        return Ragged.join(parts) if parts else Ragged.of([])

    @abstractmethod
    def decode(self, ids: Any) -> str | list[str]:
        """The symbols of one sequence of ids; specials are left out, <unk> shows as such."""

    def render(self, ids: Any) -> str:
        """One sequence of ids as text, whatever the tokenizer reads."""
        decoded = self.decode(ids)
        return decoded if isinstance(decoded, str) else self.joiner.join(decoded)

    def to_json(self) -> dict[str, Any]:
        """Options and what was learnt."""
        return {"format": FORMAT, "config": self.config.to_json(), "vocabulary": self.vocabulary.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Build the tokenizer that ``to_json`` described; called on ``Tokenizer`` it may be any of them."""
        if document.get("format") != FORMAT:
            raise ConfigError(f"this is no tokenizer of format {FORMAT}: it needs another version of seqloom")
        for key in ("config", "vocabulary"):
            if key not in document:
                raise ConfigError(f"this tokenizer lacks {key}: the file is cut short or edited")
        tokenizer = cls.Config.from_json(document["config"]).build()
        tokenizer._learn(Vocabulary.from_json(document["vocabulary"]))
        return tokenizer

    @abstractmethod
    def _count(self, piece: Sequences) -> dict[str, int]:
        """How often each symbol comes in one block."""

    @abstractmethod
    def _encode(self, piece: Sequences) -> Ragged:
        """Ids of one block."""

    def _choose(self, counts: dict[str, int]) -> Vocabulary:
        return Vocabulary.of(counts, minimum=getattr(self.config, "minimum", 1))

    def _learn(self, vocabulary: Vocabulary) -> None:
        """Take over a vocabulary; subclasses prepare their tables here."""
        self._vocabulary = vocabulary

    def _pieces(self, sequences: Any) -> Iterable[Sequences]:
        known = sequences if isinstance(sequences, Sequences) else Sequences.of(sequences)
        if known.kind not in self.reads and len(known):
            hint = {"text": "characters", "symbols": "symbols"}.get(known.kind)
            mend = f"use the tokenizer {hint}" if hint else "real values need no tokenizer"
            raise ConfigError(f"the tokenizer {type(self).__name__.lower()} does not read {known.kind}; {mend}")
        return known.pieces()


def ordinary(ids: Any) -> np.ndarray:
    """Ids without specials, but with <unk>."""
    ids = np.asarray(ids, dtype=np.int64).ravel()
    return ids[(ids >= SPECIALS.count) | (ids == SPECIALS.unk)]
