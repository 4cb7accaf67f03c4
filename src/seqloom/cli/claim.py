"""Run claims: does a mechanism do what its paper says? Exit code 0 only if every finding holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from seqloom.cli._flags import Folder
from seqloom.cli._terminal import Terminal
from seqloom.core import discovery
from seqloom.core.errors import OK, ConfigError

if TYPE_CHECKING:
    from seqloom.claims._runner import ClaimResult


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Run a claim, or all of them: every arm for every seed, and whether each finding holds on each seed.

    Example:
        seqloom claim next_element --seeds 1 --stale
    """

    id: Positional[str]
    """Id of a claim, or all."""
    seeds: int = 3
    """Each arm is trained once a seed; 1 is the quick form."""
    jobs: int = 1
    """Arms at once, each in a process of its own; what is timed runs alone."""
    stale: bool = False
    """Only claims without a result, or whose code has changed since."""
    out: Folder = "results"
    """Folder of the results, one JSON file a claim."""
    cache: Folder = ".cache/claims"
    """Folder of finished arms."""
    json: bool = False
    """One JSON object on stdout."""

    def run(self) -> int:
        """Run; the exit code is the worst of all."""
        terminal = Terminal(as_json=self.json)
        known = discovery.names("claims")
        if self.id != "all" and self.id not in known:
            raise ConfigError(f"there is no claim {self.id!r}; there are {', '.join(known) or 'none yet'}")
        from seqloom.claims._runner import run_claim, stale

        out = Path(self.out or "results")
        wanted = known if self.id == "all" else (self.id,)
        wanted = tuple(name for name in wanted if not self.stale or stale(name, out))
        documents: list[dict[str, Any]] = []
        code = OK
        with terminal.progress() as progress:
            for name in wanted:
                cache = None if self.cache is None else Path(self.cache)
                result = run_claim(name, range(self.seeds), jobs=self.jobs, cache=cache, out=out, progress=progress)
                terminal.say("\n".join(_lines(result)))
                documents.append(result.document)
                code = max(code, result.exit_code)
        if not wanted:
            terminal.note(
                "nothing to run: there are no claims here" if not known else "nothing to run: no claim is stale"
            )
        if self.json:
            terminal.give({"claims": documents})
        return code


def _lines(result: "ClaimResult") -> list[str]:
    marks = {True: "holds", False: "FAILS"}
    found = [f"  {marks[f.holds]}  {f.text}: {f.value:.4g} {f.op} {f.threshold:.4g}" for f in result.findings]
    return [f"{result.id} ({len(result.seeds)} seeds)", *found]
