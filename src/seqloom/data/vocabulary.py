"""The symbols of a data set and their ids.

pad 0, bos 1, eos 2, unk 3, mask 4, sep 5, then symbols by (-count, symbol)
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from seqloom.core.component import Value
from seqloom.core.errors import ConfigError
from seqloom.core.specials import NAMES, SPECIALS, ordered


@dataclass(frozen=True, kw_only=True)
class Vocabulary(Value):
    """Symbols in the order of their ids; a symbol that was never seen is <unk>."""

    symbols: tuple[str, ...] = ()
    """Ordinary symbols: ``symbols[0]`` has the first id behind the specials."""
    counts: tuple[int, ...] = ()
    """How often each was seen in training."""

    def __post_init__(self) -> None:
        """Refuse what would give one symbol two ids."""
        if len(self.symbols) != len(self.counts):
            raise ConfigError(f"{len(self.symbols)} symbols have {len(self.counts)} counts; each needs one")
        if len(set(self.symbols)) != len(self.symbols):
            twice = next(symbol for symbol, times in Counter(self.symbols).items() if times > 1)
            raise ConfigError(f"the symbol {twice!r} stands twice in a vocabulary")

    @classmethod
    def of(cls, counts: Mapping[str, int], *, minimum: int = 0) -> Self:
        """Order counted symbols; those seen fewer than ``minimum`` times are left out."""
        kept = {symbol: int(count) for symbol, count in counts.items() if count >= minimum}
        symbols = ordered(kept.items())
        return cls(symbols=symbols, counts=tuple(kept[symbol] for symbol in symbols))

    @classmethod
    def count(cls, symbols: Iterable[str], *, minimum: int = 1) -> Self:
        """Count symbols one by one (tokenizers count whole columns instead)."""
        return cls.of(Counter(symbols), minimum=minimum)

    @property
    def size(self) -> int:
        """Ids in all, specials included."""
        return SPECIALS.count + len(self.symbols)

    def __len__(self) -> int:
        return self.size

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._ids

    def id(self, symbol: str) -> int:
        """Id of a symbol, <unk>'s if it was never seen."""
        return self._ids.get(symbol, SPECIALS.unk)

    def ids(self, symbols: Iterable[str]) -> np.ndarray:
        """Ids of several symbols, int32."""
        return np.fromiter((self.id(symbol) for symbol in symbols), dtype=np.int32)

    def symbol(self, id: int) -> str:
        """The symbol of an id, or the name of a special such as ``<eos>``."""
        if not 0 <= id < self.size:
            raise ConfigError(f"there is no id {id}: the vocabulary has {self.size}")
        return NAMES[id] if id < SPECIALS.count else self.symbols[id - SPECIALS.count]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols, SPECIALS.count)}
