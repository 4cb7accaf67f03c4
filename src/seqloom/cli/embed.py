"""Turn each sequence of a file into one vector."""

from dataclasses import dataclass

from seqloom.cli._flags import Data, File, Model
from seqloom.cli._terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Turn each sequence of a file into one vector; ids and order are kept.

    Example:
        seqloom embed m sample:flights --to vectors.parquet
    """

    model: Model
    """Folder that fit wrote."""
    file: Data
    """File of sequences; - for stdin, or sample:NAME."""
    to: File = None
    """Write .parquet (one list column), .csv or .tsv (one column a number), or .jsonl."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """One JSON object on stdout."""

    def run(self) -> int:
        """Embed."""
        terminal = Terminal(as_json=self.json)
        from seqloom.app.fitted import load

        terminal.frame(load(self.model, device=self.device).embed(self.file), self.to)
        return 0
