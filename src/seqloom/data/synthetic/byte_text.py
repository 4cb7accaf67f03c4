"""Text as bytes: which of three novels by one author is this from?

    "_ could not forgive herself ; ..."  ->  emma        ``length`` bytes, id 6 + byte, one of three classes

The stand-in for the byte-level text task of the Long Range Arena, on real text that travels with the package. The
author is the same and names are masked, so what is left is the story's words and turns: a document has to be read.
Documents are passages of the novel's part in random order, joined by a space and cut: the novel is even over three.
Source: Tay et al., "Long range arena", 2020, arXiv:2011.04006, section 3.2.2 (form); Jane Austen, "Emma", "Pride and
prejudice", "Sense and sensibility" (text).
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.synthetic._base import Drawn, Place, Task
from seqloom.data.synthetic._novels import BYTES, FIRST, HEAD, LONGEST, NOVELS, document, novel_of, passages


class ByteText(Task):
    """Documents and the novel that they are from."""

    task, objective = "classify", "classify"

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        train: int = 4_000
        """Training documents, of 232 passages a novel."""
        length: int = 1024
        """Bytes of a document."""
        names: bool = False
        """Leave names in place, which give many documents away."""

        def __post_init__(self) -> None:
            """Refuse more than there is."""
            if not HEAD <= self.length <= LONGEST:
                raise ConfigError(f"a document has {HEAD} to {LONGEST} bytes, not {self.length}")

    @property
    def sizes(self) -> Sizes:
        """Specials and bytes; three novels."""
        return Sizes(vocabulary=FIRST + BYTES, classes=len(NOVELS))

    @property
    def floor(self) -> float:
        """One novel in three."""
        return 1.0 / len(NOVELS)

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """A novel, then its passages."""
        novel = int(rng.integers(len(NOVELS)))
        tokens, _ = document(rng, passages(place.part, self.config.names)[novel], self.config.length)
        return Drawn(tokens, target=novel)

    def oracle(self, example: Example) -> np.ndarray:
        """Look the first passage up in the novels."""
        return np.array([novel_of(example.tokens, self.config.names)])
