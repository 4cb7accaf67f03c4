"""What the claim ``s4`` counts and times: its kernel against powers of the dense matrix, and a token against attention.

Shapes: B batch, T time, D channels, N modes (half the state size), M = 2 N, R readouts, L kernel length.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqloom.core.batch import Batch
from seqloom.core.counting import Counter
from seqloom.core.sizes import Sizes
from seqloom.core.steady import Steady
from seqloom.kernels.krylov import krylov, krylov_readout
from seqloom.mixers._base import Mixer
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.ssm._transition import discretise
from seqloom.mixers.ssm.s4 import S4
from seqloom.models.backbone import Backbone
from seqloom.models.causal_lm import CausalLM

MEMORIES = ("legs", "legt", "fourier")
BARE = {"activation": "none", "output": "none"}
LENGTHS = (64, 97, 1000)
CHANNELS, STATE, TAPS = 16, 64, 4096
CONTEXT = 2048


def identity(seed: int) -> Mapping[str, float]:
    """Largest difference to the dense matrix's powers over the largest tap, by memory and precision."""
    found = {}
    for memory in MEMORIES:
        torch.manual_seed(seed)
        mixer = S4(4, S4.Config(memory=memory, **BARE)).double()  # type: ignore[arg-type]
        for when in ("start", "learnt"):
            for dtype, name in ((torch.float64, "double"), (torch.float32, "single")):
                mixer.to(dtype)
                errors = [_error(mixer, length, tied) for length in LENGTHS for tied in (0, 97)]
                found[f"{memory}_{when}_{name}"] = max(errors)
            _learn(mixer.double())
    return found


def _error(mixer: S4, length: int, tied: int) -> float:
    """Of the kernel of C, or of C~ tied to a length."""
    with torch.no_grad():
        other = mixer.stored("ctilde", tied) if tied else mixer
        want_DL, got_DL = dense(mixer, length), other.kernel(length)[0].double()
    return float((got_DL - want_DL).abs().max() / want_DL.abs().max())


def dense(mixer: S4, length: int) -> Tensor:
    """The kernel (D, L) in complex128 by A itself, both halves of every pair, and products with it one by one."""
    system, rows = mixer.system(), []
    for d in range(mixer.width):
        value_M, B_M, C_M = (_both(x[d]) for x in (system.eigenvalue_DN, system.input_DN, system.readout_RDN[0]))
        P_QM = _both(system.low_rank_QDN[:, d])
        A_MM, b_M = discretise(torch.diag(value_M) - P_QM.mT @ P_QM.conj(), B_M, system.step_D[d])
        taps = []
        for _ in range(length):
            taps.append((C_M @ b_M).real)
            b_M = A_MM @ b_M
        rows.append(torch.stack(taps))
    return torch.stack(rows)


def _both(half: Tensor) -> Tensor:
    return torch.cat([half, half.conj()], -1).resolve_conj()


def _learn(mixer: S4) -> None:
    """Three large steps of Adam towards a delay."""
    optimiser, x_BTD = torch.optim.Adam(mixer.parameters(), lr=0.02), torch.randn(2, 50, mixer.width).double()
    for _ in range(3):
        optimiser.zero_grad()
        (mixer(x_BTD)[0] - x_BTD.roll(5, 1)).square().mean().backward()
        optimiser.step()


def cost(seed: int) -> Mapping[str, float]:
    """Time, multiply-adds and memory of the kernel by both ways; times are medians of rounds that run both."""
    torch.manual_seed(seed)
    layer = S4(CHANNELS, S4.Config(state=STATE, **BARE))  # type: ignore[arg-type]
    with torch.no_grad():
        A_DMM, b_DM, c_RDM = layer.system().discrete().dense()
        arms: dict[str, Callable[[], Tensor]] = {
            "generated": lambda: layer.kernel(TAPS)[0],
            "krylov": lambda: (c_RDM.transpose(0, 1) @ krylov(A_DMM, b_DM[..., None], TAPS)[..., 0])[:, 0],
            "two_levels": lambda: krylov_readout(A_DMM, b_DM[..., None], c_RDM.transpose(0, 1), TAPS)[:, 0, 0],
        }
        want_DL = arms["krylov"]()
        times = timed(arms, 7)
        macs = {name: _macs(run) for name, run in arms.items()}
        wide = S4(CHANNELS, S4.Config(state=4 * STATE, **BARE))  # type: ignore[arg-type]
        grown = peak(lambda: wide.kernel(TAPS)) / peak(arms["generated"])
        error = max(float((run() - want_DL).abs().max() / want_DL.abs().max()) for run in arms.values())
    pairs, rows, points = STATE // 2, 4, TAPS // 2 + 1
    return {
        "error": error,
        "time_ratio": statistics.median(k / g for k, g in zip(times["krylov"], times["generated"], strict=True)),
        "time_two_levels": statistics.median(
            k / g for k, g in zip(times["two_levels"], times["generated"], strict=True)
        ),
        "macs_ratio": macs["krylov"] / macs["generated"],
        "macs_two_levels": macs["two_levels"] / macs["generated"],
        "terms_ratio": (STATE * STATE * TAPS) / (pairs * rows * points),
        "memory_growth": grown,
    }


def _macs(run: Callable[[], Tensor]) -> int:
    with Counter() as counter:
        run()
    return counter.macs.total


def peak(run: Callable[[], Tensor]) -> int:
    """Most bytes of tensors that lived at once beyond those before the call."""
    run()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        run()
    results: Any = seen.profiler and seen.profiler.kineto_results
    events = sorted(
        (event for event in results.events() if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    most = now = 0
    for event in events:
        now += event.nbytes()
        most = max(most, now)
    return most


def generation(seed: int) -> Mapping[str, float]:
    """Tokens a second after a context: one step of S4, attention over a cache, attention that reads everything anew."""
    torch.manual_seed(seed)
    tokens_BT = torch.randint(6, 64, (1, CONTEXT))
    ours, theirs, empty = _model(S4.Config()), _model(Attention.Config()), Batch(index_B=torch.zeros(1).long())
    with torch.no_grad():
        state, cached = ours.step(tokens_BT, ours.start(empty))[1], theirs.step(tokens_BT, theirs.start(empty))[1]
        arms: dict[str, Callable[[], Tensor]] = {
            "step": Steady()(lambda: ours.step(tokens_BT[:, :1], state)[0]),
            "cached": lambda: theirs.step(tokens_BT[:, :1], cached.fork())[0],
            "anew": lambda: theirs.step(tokens_BT, theirs.start(empty))[0][:, -1],
        }
        times = timed(arms, 15)
    return {
        "tokens_per_second": 1 / statistics.median(times["step"]),
        "parameter_ratio": _size(ours) / _size(theirs),
        "over_anew": _over(times["anew"], times["step"]),
        "over_cached": _over(times["cached"], times["step"]),
    }


def _model(mixer: Mixer.Config) -> CausalLM:
    """Four layers; the width gives both the same number of parameters to a twentieth."""
    width = 112 if isinstance(mixer, S4.Config) else 128
    backbone = Backbone.Config(width=width, layers=4, mixers=(mixer,))
    return CausalLM(Sizes(vocabulary=64), CausalLM.Config(backbone=backbone)).eval()


def _size(model: CausalLM) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def timed(arms: Mapping[str, Callable[[], Tensor]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every arm in every round, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, run in arms.items():
            began = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - began)
    return times


def _over(those: list[float], ours: list[float]) -> float:
    """Median over the rounds of a ratio within a round."""
    return statistics.median(one / own for one, own in zip(those, ours, strict=True))


def slope(lengths: tuple[int, ...] = (1 << 14, 1 << 17, 1 << 20)) -> float:
    """Exponent of the kernel's time in its length, between the first and the last, one channel; best of three."""
    layer = S4(1, S4.Config(state=STATE, **BARE))  # type: ignore[arg-type]
    arms = {str(length): lambda length=length: layer.kernel(length) for length in lengths}
    with torch.no_grad():
        best = [min(times) for times in timed(arms, 3).values()]
    return math.log(best[-1] / best[0]) / math.log(lengths[-1] / lengths[0])
