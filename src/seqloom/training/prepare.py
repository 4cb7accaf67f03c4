"""From a run's data to examples: read, split, learn the vocabulary on the training part alone, encode."""

from dataclasses import dataclass, field

from seqloom.core.sizes import Sizes
from seqloom.data.examples import Examples
from seqloom.tokenizers._base import Tokenizer


@dataclass
class Prepared:
    """Data that a training can eat."""

    sizes: Sizes
    train: Examples
    valid: Examples
    test: Examples
    tokenizer: Tokenizer | None = None
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers."""
    notes: list[str] = field(default_factory=list)
    """What was decided on the way, in sentences: how the data were split, what was cut."""
