"""Retrieval: are two documents from the same novel?

    first document | _ | second document  ->  1 the same novel, 0 another          ``length`` bytes each, _ is <sep>

The stand-in for the document matching of the Long Range Arena, on the documents of ``byte_text``. There, one network
encodes each document and a small one compares the two vectors; a classifier here reads one sequence, both documents
with a mark between them. Half of the pairs match; the two documents never share a passage.
Source: Tay et al., "Long range arena", 2020, arXiv:2011.04006, section 3.2.3 (form); Jane Austen (text).
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Place, Task
from seqloom.data.synthetic._novels import BYTES, FIRST, HEAD, LONGEST, NOVELS, document, novel_of, passages


class Retrieval(Task):
    """Pairs of documents, half of them of one novel."""

    task, objective = "classify", "classify"

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        train: int = 4_000
        """Training pairs, of 232 passages a novel."""
        length: int = 512
        """Bytes of each of the two documents."""
        names: bool = False
        """Leave names in place, which give many pairs away."""

        def __post_init__(self) -> None:
            """Refuse more than there is: two documents of one novel share its passages."""
            if not HEAD <= self.length <= LONGEST // 2:
                raise ConfigError(f"a document of a pair has {HEAD} to {LONGEST // 2} bytes, not {self.length}")

    @property
    def sizes(self) -> Sizes:
        """Specials and bytes; another novel or the same."""
        return Sizes(vocabulary=FIRST + BYTES, classes=2)

    @property
    def floor(self) -> float:
        """One in two."""
        return 0.5

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """A label, a novel, and for the second document its other passages or another novel."""
        pools, same = passages(place.part, self.config.names), bool(rng.integers(2))
        one, other = rng.permutation(len(NOVELS))[:2]
        first, left = document(rng, pools[one], self.config.length)
        second, _ = document(rng, left if same else pools[other], self.config.length)
        return Drawn(np.concatenate([first, [SPECIALS.sep], second]), target=int(same))

    def oracle(self, example: Example) -> np.ndarray:
        """Look both first passages up in the novels."""
        cut = int(np.argmax(example.tokens == SPECIALS.sep))
        first, second = (novel_of(half, self.config.names) for half in (example.tokens, example.tokens[cut + 1 :]))
        return np.array([int(first == second)])
