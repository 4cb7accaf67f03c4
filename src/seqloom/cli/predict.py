"""Tell what comes next in each sequence of a file, its class, or its number."""

from dataclasses import dataclass

from seqloom.cli._flags import Data, File, Model
from seqloom.cli._terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Tell what comes next in each sequence of a file, its class, or its number; ids and order are kept.

    Example:
        seqloom predict m sample:flights --top 3 --to next.csv
    """

    model: Model
    """Folder that fit wrote."""
    file: Data
    """File of sequences, read like the one that the model was trained on; - for stdin, or sample:NAME."""
    top: int = 5
    """Task next: how many of the likeliest symbols."""
    horizon: int = 0
    """Real values: how many steps ahead; 0 = as far as the model was fitted for, else one."""
    to: File = None
    """Write .csv, .tsv, .parquet or .jsonl; else a table on a terminal, CSV in a pipe."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """One JSON object on stdout."""

    def run(self) -> int:
        """Predict."""
        terminal = Terminal(as_json=self.json)
        from seqloom.app.drift import told
        from seqloom.app.fitted import load
        from seqloom.app.plan import is_neural

        fitted = load(self.model, device=self.device)
        asked = fitted.read(self.file)
        terminal.frame(fitted.predict(asked, top=self.top, horizon=self.horizon), self.to)
        for line in told(fitted.warnings(asked), self.model, network=is_neural(fitted.run.model)):
            terminal.note(line)
        return 0
