"""Tell how well each sequence of a file fits a model: the more bits, the odder."""

from dataclasses import dataclass

from seqloom.cli._flags import Data, File, Model
from seqloom.cli._terminal import Terminal
from seqloom.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Score:
    """Tell how well each sequence of a file fits a model, in bits per symbol, the end symbol included: more is odder.

    Example:
        seqloom score m sample:flights --odd 5
    """

    model: Model
    """Folder that fit wrote."""
    file: Data
    """File of sequences; - for stdin, or sample:NAME."""
    odd: int = 0
    """Show only so many of the oddest sequences, the oddest first; 0 = all, in the file's order."""
    symbols: bool = False
    """Bits of every single symbol instead of every sequence."""
    to: File = None
    """Write .csv, .tsv, .parquet or .jsonl; else a table on a terminal, CSV in a pipe."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """One JSON object on stdout."""

    def run(self) -> int:
        """Score."""
        terminal = Terminal(as_json=self.json)
        if self.odd < 0:
            raise ConfigError(f"--odd must be 0 (all) or above, not {self.odd}")
        from seqloom.app.drift import told
        from seqloom.app.fitted import load
        from seqloom.app.plan import is_neural

        fitted = load(self.model, device=self.device)
        asked = fitted.read(self.file)
        if self.symbols:
            frame, warnings = fitted.surprise(asked), fitted.warnings(asked)
        else:
            frame, warnings = fitted.scored(asked)
        if self.odd:
            measure = next((name for name in frame.columns if name.startswith("bits_per_")), "bits")
            frame = frame.sort(measure, descending=True, maintain_order=True).head(self.odd)
        terminal.frame(frame, self.to)
        for line in told(warnings, self.model, network=is_neural(fitted.run.model)):
            terminal.note(line)
        return 0
