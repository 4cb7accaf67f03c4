"""Digits: a small grey picture of a written digit, read pixel by pixel.

    8 x 8 pixels of 0 .. 16 in raster order -> 64 steps of one channel in [0, 1]; ten classes
    ``repeat`` r shows every pixel as a block of r x r: 64 r^2 steps (r = 4: 1024)
    ``permuted`` shuffles the steps, for every picture in the same way: neighbours in time tell nothing any more

The pixels are real values, not 17 symbols: grey is ordered, and 7 lies between 6 and 8 without having to be learnt; the
published pixel tasks of state-space models read them in this way, too. Nothing is drawn: the seed changes nothing. The
first 1,400 pictures train (the last of these validate), the other 397 test, as they lie in the file; it is ordered by
who wrote them, so the test part holds other hands.
Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (as in scikit-learn); the task is
that of Le et al., "A simple way to initialize recurrent networks of rectified linear units", 2015, arXiv:1504.00941,
section 4.2.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError, MissingExtra
from seqloom.core.rng import generator
from seqloom.core.sizes import Sizes
from seqloom.data.synthetic._base import Drawn, Place, Task

LEARNT, ALL = 1400, 1797
SIDE, CLASSES, WHITE = 8, 10, 16.0


class Digits(Task):
    """1,797 written digits as sequences."""

    task, objective = "classify", "classify"
    found = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Sizes and form."""

        train: int = 1_200
        """Training pictures, the first ones."""
        valid: int = 200
        """Validation pictures, the last ones of the first 1,400."""
        test: int = ALL - LEARNT
        """Test pictures, the first ones behind these."""
        repeat: int = 1
        """Steps a pixel along either side: 1 gives 64 steps, 4 gives 1024."""
        permuted: bool = False
        """Shuffle the steps, always in the same way."""

        def __post_init__(self) -> None:
            """Refuse more than there is."""
            if self.train + self.valid > LEARNT or not 1 <= self.test <= ALL - LEARNT:
                raise ConfigError(
                    f"there are {LEARNT} pictures to train and validate and 1 to {ALL - LEARNT} to test, not "
                    f"{self.train} + {self.valid} and {self.test}"
                )
            if self.repeat < 1:
                raise ConfigError(f"a pixel is shown at least once, not {self.repeat} times")

    @property
    def sizes(self) -> Sizes:
        """One channel; ten digits."""
        return Sizes(classes=CLASSES, channels=1)

    @property
    def floor(self) -> float:
        """Share of the most frequent digit of the test part."""
        return float(np.bincount(_pictures()[1][LEARNT:][: self.config.test]).max() / self.config.test)

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """The picture with this number."""
        learnt = place.part != "test"
        if place.index >= (LEARNT if learnt else ALL - LEARNT):
            raise ConfigError(f"there is no picture {place.index} in the {place.part} part: they are found, not drawn")
        first = {"train": place.index, "valid": LEARNT - 1 - place.index, "test": LEARNT + place.index}
        pictures, digits = _pictures()
        at = first[place.part]
        return Drawn(None, values=self._steps(pictures[at]), target=int(digits[at]))

    def oracle(self, example: Example) -> np.ndarray:
        """Look the picture up."""
        pictures, digits = _pictures()
        own = self._pixels(example)
        return digits[np.abs(pictures - own).sum((1, 2)).argmin()][None]

    def _steps(self, picture: np.ndarray) -> np.ndarray:
        large = np.kron(picture, np.ones((self.config.repeat, self.config.repeat), np.float32))
        return (large.reshape(-1)[self._order()] / np.float32(WHITE))[:, None]

    def _pixels(self, example: Example) -> np.ndarray:
        """The picture that was shown."""
        side, steps = SIDE * self.config.repeat, np.empty_like(example.values)
        steps[self._order()] = example.values
        return steps.reshape(side, side)[:: self.config.repeat, :: self.config.repeat] * WHITE

    def _order(self) -> np.ndarray:
        steps = (SIDE * self.config.repeat) ** 2
        return generator(0, "Digits", "order").permutation(steps) if self.config.permuted else np.arange(steps)


@cache
def _pictures() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1797, 8, 8) and digits."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("scikit-learn", "digits") from error
    known: Any = load_digits()
    return known.images.astype(np.float32), known.target.astype(np.int64)
