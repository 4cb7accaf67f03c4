"""Say what is in a file, what was guessed, and which flags override the guesses."""

from dataclasses import dataclass, field

from seqloom.cli._flags import Data, DataFlags
from seqloom.cli._terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Say what is in a file: kind, lengths, alphabet, time span, duplicates, likely task, and what was guessed.

    Example:
        seqloom inspect sample:flights
    """

    file: Data
    """File of sequences, - for stdin, or sample:NAME."""
    json: bool = False
    """One JSON object on stdout."""
    data: DataFlags = field(default_factory=DataFlags)

    def run(self) -> int:
        """Inspect."""
        terminal = Terminal(as_json=self.json)
        from seqloom.app.inspect import inspect

        found = inspect(self.data.source(self.file))
        if self.json:
            terminal.give(found.figures())
            return 0
        terminal.say("\n".join(f"{heading:<12} {text}" for heading, text in found.lines()))
        return 0
