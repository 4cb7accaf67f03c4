"""Time the kernels of this copy against their references, each checked first."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from seqloom.cli._terminal import Terminal
from seqloom.core import discovery
from seqloom.core.errors import FINDING_FALSE, OK, ConfigError

if TYPE_CHECKING:
    from seqloom.testing.benchmark import Case


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time the kernels of this copy against their references; one that is wrong is not timed, and the exit code tells.

    Example:
        seqloom bench linear_scan
    """

    kernel: Positional[str] = "all"
    """Name of a kernel, or all."""
    threads: int = 1
    """Threads; one is the fair choice on a busy machine."""
    rounds: int = 5
    """How often each arm runs."""
    json: bool = False
    """One JSON object on stdout."""

    def run(self) -> int:
        """Time."""
        terminal = Terminal(as_json=self.json)
        known = discovery.names("kernels")
        if self.kernel not in ("all", *known):
            raise ConfigError(f"there is no kernel {self.kernel!r}; there are {', '.join(known)}")
        from seqloom.testing.benchmark import run_case

        wanted = known if self.kernel == "all" else (self.kernel,)
        results = []
        with terminal.progress() as progress:
            for name in wanted:
                progress.stage(f"time {name}")
                results += [run_case(case, self.threads) for case in _cases(name, self.rounds)]
        for one in results:
            terminal.say(f"{one.name}: {one.failure}" if one.failure else _line(one))
        if self.json:
            terminal.give({"results": [_figures(one) for one in results]})
        return FINDING_FALSE if any(one.failure for one in results) else OK


def _cases(name: str, rounds: int) -> "Iterator[Case]":
    """The largest of a kernel's own cases, dispatched as usual and by its reference."""
    import torch

    from seqloom.testing.benchmark import Case

    kernel: Any = discovery.get("kernels", name)
    cases = kernel.generate(torch.Generator().manual_seed(0), torch.float32)
    inputs = max(cases, key=lambda given: sum(x.numel() for x in given if isinstance(x, torch.Tensor)))

    def check() -> None:
        torch.testing.assert_close(kernel(*inputs), kernel.reference(*inputs), rtol=1e-3, atol=1e-4)

    with torch.no_grad():
        who = next(verdict.backend for verdict in kernel.explain(*inputs) if verdict.runs)
        arms = {who: lambda: kernel(*inputs), "by the reference": lambda: kernel.reference(*inputs)}
        yield Case(name=name, arms=arms, floor="by the reference", check=check, rounds=rounds)


def _line(one: Any) -> str:
    who, ratio = next(iter(one.ratios.items()))
    return f"{one.name}: {who} takes {ratio:.3f} of the reference's time ({one.seconds[who] * 1e6:,.0f} µs)"


def _figures(one: Any) -> dict[str, Any]:
    return {"name": one.name, "seconds": dict(one.seconds), "ratios": dict(one.ratios), "failure": one.failure}
