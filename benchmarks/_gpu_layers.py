"""Time and memory of one layer of every mixer against the length, on a device: the lines of the crossover guide.

Shapes: B batch, T time, D width.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import torch

from seqloom.mixers import names
from seqloom.testing.mixers import options

WIDTH = 256
LENGTHS = tuple(1024 << power for power in range(7))  # 1k to 64k
SLOWEST_MS = 200.0
"""A mixer that takes longer at one length is not run at the next."""
FIRST = ("attention", "s4d", "mamba", "hyena", "s4", "sgconv", "mamba2", "gla", "mlstm", "rg_lru", "retention")
LEFT_OUT = ("bidirectional", "reverse_complement", "matrix_mixer")  # wrappers, and dense matrices of T x T


def order() -> list[str]:
    """The most asked for first."""
    known = [name for name in names() if name not in LEFT_OUT]
    return [name for name in FIRST if name in known] + [name for name in known if name not in FIRST]


def long_enough(config: Any, length: int) -> Any:
    """The default options, reaching ``length`` where an option says how far they reach."""
    bound = config.traits().length_bound
    if bound is None or bound >= length:
        return config
    same = [item.name for item in fields(config) if getattr(config, item.name) == bound]
    return replace(config, **dict.fromkeys(same, length)) if same else config


def layers(
    device: str, clock: Callable[[Callable[[], Any]], float], *, small: bool = False
) -> Iterator[dict[str, Any]]:
    """One row a mixer and length: milliseconds forwards, and forwards and backwards; bytes at the peak."""
    lengths, width = (LENGTHS[:1], 16) if small else (LENGTHS, WIDTH)
    for name in order():
        for T in (64,) if small else lengths:
            row = {"mixer": name, "T": T, "B": 1, "D": width, "dtype": "float32"}
            try:
                row |= measure(name, T, width, device, clock)
            except Exception as error:
                yield {**row, "failure": f"{type(error).__name__}: {str(error).strip()[:160]}"}
                break
            yield row
            if row["both_ms"] > SLOWEST_MS:
                break


def measure(
    name: str, T: int, width: int, device: str, clock: Callable[[Callable[[], Any]], float]
) -> dict[str, float]:
    torch.manual_seed(0)
    mixer = long_enough(dict(options(name))[name], T).build(width).to(device)
    x_BTD = torch.randn(1, T, width, device=device, requires_grad=True)
    dy_BTD, into = torch.randn(1, T, width, device=device), [x_BTD, *mixer.parameters()]
    context = torch.randn(1, T, width, device=device) if mixer.can.context else None

    def forward() -> Any:
        with torch.no_grad():
            return mixer(x_BTD, context=context)[0]

    def both() -> Any:
        return torch.autograd.grad(mixer(x_BTD, context=context)[0], into, dy_BTD, allow_unused=True)

    both()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    both()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {"forward_ms": clock(forward), "both_ms": clock(both), "bytes": peak}
