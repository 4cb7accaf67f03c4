"""Find the most similar sequences of a file."""

from dataclasses import dataclass

from seqloom.cli._flags import Data, File, Model
from seqloom.cli._terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Similar:
    """Find the most similar sequences of a file, by the cosine of their vectors, centred on the file's mean.

    Example:
        seqloom similar m sample:flights --id N644JB/01 --top 3
    """

    model: Model
    """Folder that fit wrote."""
    file: Data
    """Where to look: a file of sequences, or sample:NAME."""
    like: File = None
    """What to look for: another file; default: every sequence of the first one."""
    id: str | None = None
    """Look only for what is like the sequence with this id."""
    top: int = 5
    """How many neighbours."""
    to: File = None
    """Write .csv, .tsv, .parquet or .jsonl."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """One JSON object on stdout."""

    def run(self) -> int:
        """Search."""
        terminal = Terminal(as_json=self.json)
        from seqloom.app.fitted import load

        fitted = load(self.model, device=self.device)
        terminal.frame(fitted.similar(self.file, to=self.like, top=self.top, id=self.id), self.to)
        return 0
