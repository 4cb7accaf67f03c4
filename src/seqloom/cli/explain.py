"""Explain a part: who runs a kernel and why, what a mixer can do, what a config's fields mean."""

from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import Positional

from seqloom.cli._terminal import Terminal
from seqloom.core import discovery
from seqloom.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Explain a part: who runs a kernel and why the others do not, what a mixer can do, what its fields mean.

    Example:
        seqloom explain mixer gru
    """

    what: Positional[Literal["kernel", "mixer", "model", "tokenizer", "objective", "decoder", "reader"]]
    """Kind of the part."""
    name: Positional[str]
    """Its name; seqloom list shows them."""
    json: bool = False
    """One JSON object on stdout."""

    def run(self) -> int:
        """Explain."""
        terminal = Terminal(as_json=self.json)
        from seqloom.app import explain

        shelf = explain.shelf_of(self.what, self.name)
        if shelf is None:
            shelves = [one for one in explain.SHELVES[self.what] if discovery.names(one)]
            known = ", ".join(name for one in shelves for name in discovery.names(one))
            raise ConfigError(f"there is no {self.what} {self.name!r}; there are {known or 'none'}")
        document: dict[str, Any] = explain.explain(shelf, self.name)
        if self.json:
            terminal.give(document)
        else:
            terminal.say("\n".join(explain.lines(document)))
        return 0
