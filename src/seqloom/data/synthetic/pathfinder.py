"""Pathfinder: do the two dots lie on the same dashed curve?

    two curves of ``contour`` dashes and some shorter ones as distraction, on side x side pixels, read row by row

    dash      3 pixels along its direction, then a gap of 1; the direction turns by N(0, (pi/8)^2), at most pi/3
    distance  at least 2 blank pixels between curves, also around the dots, which are blocks of 3 x 3
    label     1: a dot at either end of one curve    0: one of the two dots moves to an end of the other curve

Both pictures come from the same drawing, and it is kept only if the dot moves to a place about as far from the dot that
stays: neither the number of dark pixels, nor their places, nor the distance of the dots tells the label, only the way
from one to the other does. The published pictures are drawn at 300 pixels, thinned and scaled down to grey; ours are
drawn at their final size, in two symbols. A sharp turn may close a gap. Side 32 is Pathfinder, side 128 Path-X.
Source: Linsley et al., "Learning long-range spatial dependencies with horizontal gated recurrent units", 2018,
arXiv:1805.08315, section 3.1; Tay et al., "Long range arena", 2020, arXiv:2011.04006, section 3.2.5.
"""

from dataclasses import dataclass
from math import cos, hypot, pi, sin

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Place, Task

BLANK = SPECIALS.count
INK = BLANK + 1

Pixel = tuple[int, int]
Dash = tuple[Pixel, ...]
Curve = tuple[Dash, ...]
Dots = tuple[Pixel, Pixel]

_APART = 2  # blank pixels between curves; a gap within one has 1
_TRIES = 100  # places that are looked at for one curve
_DRAWINGS = 1000
_SECONDS = 8  # second curves that are looked at for a first one
_ALIKE = 2.0  # pixels by which the two distances between dots may differ


class Pathfinder(Task):
    """Pictures of dashed curves with two dots, half of them connected."""

    task, objective = "classify", "classify"

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        train: int = 2_000
        """Training examples; one takes ten milliseconds and more to draw."""
        side: int = 32
        """Pixels a side: side x side steps."""
        contour: int = 6
        """Dashes of the two curves that may carry dots (6, 9 or 14 in the published pictures)."""
        distractors: int = 3
        """Curves of a third of that length without dots."""

        def __post_init__(self) -> None:
            """Refuse what does not fit on the paper."""
            if self.contour < 2 or self.distractors < 0:
                raise ConfigError(f"a curve needs 2 dashes, not {self.contour} (and {self.distractors} distractors)")
            room = 0.6 * self.side**2 - 2 * (40 + 20 * self.contour)  # the rest is too torn to be used
            too_long = 4 * self.contour > 1.15 * self.side  # a curve that has to turn back on itself is seldom found
            if too_long or self.distractors * (40 + 20 * self.short) > max(room, 0):
                raise ConfigError(
                    f"curves of {self.contour} dashes and {self.distractors} distractors do not fit on {self.side} x "
                    f"{self.side} pixels"
                )

        @property
        def short(self) -> int:
            """Dashes of a distractor."""
            return max(self.contour // 3, 1)

    @property
    def sizes(self) -> Sizes:
        """Specials, blank and ink; apart or connected."""
        return Sizes(vocabulary=INK + 1, classes=2)

    @property
    def floor(self) -> float:
        """One in two."""
        return 0.5

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """A drawing whose two pictures are both fair, and one of them."""
        for _ in range(_DRAWINGS):
            drawing = _drawing(rng, self.config)
            if drawing is None:
                continue
            curves, dots = drawing
            if all(len(_blocks(_picture(curves, pair, self.config.side))) == 2 for pair in dots):
                label = int(rng.integers(2))
                picture = _picture(curves, dots[label], self.config.side)
                return Drawn(BLANK + picture.reshape(-1).astype(np.int32), target=label)
        raise ConfigError(f"none of {_DRAWINGS} drawings found room: take shorter curves, fewer, or a larger side")

    def oracle(self, example: Example) -> np.ndarray:
        """Flood the ink from one dot, over gaps of one pixel but not of two, and see whether the other gets wet."""
        picture = (example.tokens == INK).reshape(self.config.side, self.config.side)
        first, second = _blocks(picture)
        dry, waiting = set(zip(*(axis.tolist() for axis in picture.nonzero()), strict=True)) - {first}, [first]
        while waiting:
            near = [pixel for pixel in _around(waiting.pop(), _APART) if pixel in dry]
            dry.difference_update(near)
            waiting.extend(near)
        return np.array([int(second not in dry)])


class _Paper:
    """What has been drawn, and where nothing may be drawn any more."""

    def __init__(self, side: int) -> None:
        """White, but for an edge of one pixel that stays so, since a dot needs it."""
        self.side = side
        self.taken = {(y, x) for y in range(-_APART, side + _APART) for x in (-2, -1, 0, side - 1, side, side + 1)}
        self.taken.update((x, y) for y, x in [*self.taken])

    def take(self, curve: Curve) -> None:
        """Keep others away from a curve and from the dots that its ends may carry."""
        for pixel in (pixel for dash in curve for pixel in dash):
            self.taken.update(_around(pixel, _APART))
        for end in _ends(curve):
            self.taken.update(_around(end, _APART + 1))

    def find(self, rng: np.random.Generator, dashes: int) -> Curve | None:
        """Room for one more curve; None where none was found."""
        tries = (self._curve(rng, dashes) for _ in range(_TRIES))
        return next((curve for curve in tries if curve is not None), None)

    def _curve(self, rng: np.random.Generator, dashes: int) -> Curve | None:
        """Dash by dash from a random place; None where there is no way on."""
        y, x = rng.uniform(1, self.side - 2, size=2)
        if not self.taken.isdisjoint(_around((round(y), round(x)), 1)):
            return None
        angle, curve, own = rng.uniform(0, 2 * pi), [], set()
        for number in range(dashes):
            for turn in np.clip(rng.normal(0, pi / 8, 12), -pi / 3, pi / 3).tolist():
                turned = angle + turn * (number > 0)
                down, right = _step(turned)
                at_y, at_x = (y + down, x + right) if number else (y, x)
                dash = tuple((round(at_y + k * down), round(at_x + k * right)) for k in range(3))
                if self.taken.isdisjoint(dash) and own.isdisjoint(dash):
                    break
            else:
                return None
            if number:
                own.update(near for pixel in curve[-1] for near in _around(pixel, _APART))
            curve.append(dash)
            y, x, angle = at_y + 3 * down, at_x + 3 * right, turned
        return tuple(curve) if self.taken.isdisjoint(_around(curve[-1][-1], 1)) else None


def _drawing(rng: np.random.Generator, config: Pathfinder.Config) -> tuple[list[Curve], list[Dots]] | None:
    """Curves, and the dots of label 0 and of label 1; None where a curve finds no place or the dots none alike."""
    paper = _Paper(config.side)
    one = paper.find(rng, config.contour)
    if one is None:
        return None
    paper.take(one)
    stays, connected = (_ends(one)[i] for i in rng.permutation(2))
    far, apart, two = _distance(stays, connected), [], None
    for _ in range(_SECONDS):
        two = paper.find(rng, config.contour)
        apart = [] if two is None else [end for end in _ends(two) if abs(_distance(stays, end) - far) <= _ALIKE]
        if apart:
            break
    if two is None or not apart:
        return None
    curves = [one, two]
    paper.take(two)
    for _ in range(config.distractors):
        other = paper.find(rng, config.short)
        if other is None:
            return None
        paper.take(other)
        curves.append(other)
    return curves, [(stays, apart[int(rng.integers(len(apart)))]), (stays, connected)]


def _ends(curve: Curve) -> tuple[Pixel, Pixel]:
    return curve[0][0], curve[-1][-1]


def _step(angle: float) -> tuple[float, float]:
    """From a pixel to the next in this direction: one whole pixel along the steeper axis."""
    y, x = sin(angle), cos(angle)
    longest = max(abs(y), abs(x))
    return y / longest, x / longest


def _around(pixel: Pixel, reach: int) -> list[Pixel]:
    y, x = pixel
    return [(y + dy, x + dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]


def _distance(one: Pixel, two: Pixel) -> float:
    return hypot(one[0] - two[0], one[1] - two[1])


def _picture(curves: list[Curve], dots: Dots, side: int) -> np.ndarray:
    """True where there is ink."""
    picture = np.zeros((side, side), bool)
    pixels = [pixel for curve in curves for dash in curve for pixel in dash]
    for y, x in (*pixels, *_around(dots[0], 1), *_around(dots[1], 1)):
        picture[y, x] = True
    return picture


def _blocks(picture: np.ndarray) -> list[Pixel]:
    """The middles of all 3 x 3 blocks of ink."""
    side = len(picture)
    full = np.ones((side - 2, side - 2), bool)
    for dy, dx in np.ndindex(3, 3):
        full &= picture[dy : side - 2 + dy, dx : side - 2 + dx]
    return [(y + 1, x + 1) for y, x in zip(*(axis.tolist() for axis in full.nonzero()), strict=True)]
