"""Show the parts by shelf: models, mixers, tokenizers, readers, samples, ..."""

from dataclasses import dataclass

from tyro.conf import Positional

from seqloom.cli._terminal import Terminal
from seqloom.core import discovery
from seqloom.core.errors import ConfigError

SAMPLES = "samples"


@dataclass(frozen=True, kw_only=True)
class List:
    """Show the parts by shelf with what each is; nothing is imported for it.

    Example:
        seqloom list mixers
    """

    shelf: Positional[str] = "all"
    """mixers, models/classical, tokenizers, data/readers, kernels, ..., samples; or all."""
    json: bool = False
    """One JSON object on stdout."""

    def run(self) -> int:
        """List."""
        terminal = Terminal(as_json=self.json)
        shelves = [shelf for shelf in discovery.SHELVES if self.shelf in ("all", shelf, shelf.split("/")[0])]
        if not shelves and self.shelf != SAMPLES:
            raise ConfigError(
                f"no shelf is called {self.shelf!r}; there are {', '.join((*discovery.SHELVES, SAMPLES))}"
            )
        found = {shelf: {name: discovery.summary(shelf, name) for name in discovery.names(shelf)} for shelf in shelves}
        if self.shelf in ("all", SAMPLES):
            from seqloom.data import samples

            found[SAMPLES] = {f"sample:{name}": samples.about(name)["description"] for name in samples.names()}
        if self.json:
            terminal.give(found)
            return 0
        for shelf, parts in found.items():
            if parts:
                width = max(map(len, parts))
                terminal.say(shelf, *(f"  {name:<{width}}  {what}" for name, what in parts.items()), "")
        return 0
