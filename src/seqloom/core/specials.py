"""Special symbols and the one order of a vocabulary.

Ids: pad 0, bos 1, eos 2, unk 3, mask 4, sep 5; then symbols by (-count, symbol).
"""

from collections.abc import Iterable
from dataclasses import dataclass

NAMES = ("<pad>", "<bos>", "<eos>", "<unk>", "<mask>", "<sep>")


@dataclass(frozen=True, slots=True)
class Specials:
    """The ids that mean something to objectives and decoders; foreign ids are mapped only in interop."""

    pad: int = 0
    bos: int = 1
    eos: int = 2
    unk: int = 3
    mask: int = 4
    sep: int = 5

    @property
    def count(self) -> int:
        """Ids that are no ordinary symbol: the first ordinary id."""
        return len(NAMES)

    @property
    def unpredictable(self) -> tuple[int, ...]:
        """Ids that a model of seqloom never has to predict: every special but eos and unk."""
        return self.pad, self.bos, self.mask, self.sep


SPECIALS = Specials()


def ordered(counts: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """Symbols in the order of their ids: the most frequent first, ties by the symbol itself."""
    return tuple(symbol for symbol, _ in sorted(counts, key=lambda pair: (-pair[1], pair[0])))
