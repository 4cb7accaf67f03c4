"""Lengths of tasks that are learnt on short words and judged on longer ones."""

from typing import Protocol

from seqloom.core.errors import ConfigError
from seqloom.data.synthetic._base import Part


class _Lengths(Protocol):
    @property
    def length(self) -> int: ...
    @property
    def test_length(self) -> int: ...
    @property
    def test(self) -> int: ...


def span(part: Part, longest: int, beyond: int) -> tuple[int, int]:
    """Fewest and most symbols of a part: test words are longer than training's, or exactly its longest ones."""
    if part != "test":
        return 1, longest
    return (longest + 1, beyond) if beyond else (longest, longest)


def divisible(name: str, symbols: int, config: _Lengths) -> None:
    """ConfigError where the test part has no length, or where its words are too few to be new ones."""
    shortest, most = span("test", config.length, config.test_length)
    if config.length < 1 or most < shortest:
        raise ConfigError(f"{name} is tested beyond its training length {config.length}, not at {config.test_length}")
    if symbols**shortest < 16 * config.test:
        raise ConfigError(
            f"{name}: {symbols} symbols make too few words of {shortest} for {config.test} test examples that training "
            "never saw"
        )
