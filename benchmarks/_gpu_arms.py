"""What `gpu.py` times: one case an operation, its arms ours, the torch reference, and other libraries where they are.

Shapes: B batch, T time, D width, E channels, N states, H heads, K key, V value, G gates.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d, logsigmoid, pad, silu, softplus

from seqloom.core.discovery import module, names

PROBE = 512
"""Time steps at which every arm's error is measured against the reference in float64."""


@dataclass(frozen=True)
class Arm:
    """One way to compute the same outputs."""

    label: str
    call: Callable[..., Tensor]
    """Inputs -> outputs."""
    inputs: tuple[Any, ...]
    """In the layout that this arm wants; gradients are taken to those of floating point."""


@dataclass(frozen=True)
class Case:
    """Arms of one operation at one size; the first is ours."""

    name: str
    arms: tuple[Arm, ...]
    truth: Callable[[], Tensor] | None = None
    """The reference in float64 on the same rounded inputs, in the layout of the outputs of ours."""
    macs: int = 0
    slow: frozenset[str] = field(default_factory=frozenset)
    """Arms that are timed forwards only and left out of the probe."""


def of(kernel: str, home: str | None = None) -> Any:
    """A kernel by its name."""
    return getattr(module("kernels", home or kernel), kernel)


def absent(package: str) -> str:
    """Why a package cannot be used here, or nothing."""
    try:
        __import__(package)
    except Exception as error:  # a package that needs a device raises what it likes
        return f"{package}: {type(error).__name__}: {str(error)[:120]}"
    return ""


def normal(*shape: int, like: tuple[torch.dtype, str], scale: float = 1.0) -> Tensor:
    dtype, device = like
    return (scale * torch.randn(shape, device=device, dtype=torch.float32)).to(dtype)


def wide(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(v.detach().double() if isinstance(v, Tensor) and v.is_floating_point() else v for v in values)


def linear_scan(like, T=8192, B=4, D=1024) -> Case:
    op = of("linear_scan")
    log_BTD = logsigmoid(normal(B, T, D, like=like).float() + 4)
    a_BTD, x_BTD, h_BD = log_BTD.exp().to(like[0]), normal(B, T, D, like=like), normal(B, D, like=like) * 0
    ours = (a_BTD, x_BTD, h_BD)
    arms = [Arm("seqloom", lambda *v: op(*v)[0], ours), Arm("torch loop", lambda *v: op.reference(*v)[0], ours)]
    if not absent("fla.ops.hgrn"):
        from fla.ops.hgrn import chunk_hgrn, fused_recurrent_hgrn

        theirs = (x_BTD, a_BTD.float().log().to(like[0]))
        arms.append(Arm("fla chunk_hgrn", lambda x, g: chunk_hgrn(x, g)[0], theirs))
        arms.append(Arm("fla fused_recurrent_hgrn", lambda x, g: fused_recurrent_hgrn(x, g)[0], theirs))
    slow = frozenset({"torch loop"})
    return Case(f"linear_scan ({B}, {T}, {D})", tuple(arms), lambda: op.reference(*wide(ours))[0], B * T * D, slow)


def constant_scan(like, T=8192, B=4, D=1024) -> Case:
    op = of("linear_scan")
    a_BTD = (0.9 + 0.09 * torch.rand(1, 1, D, device=like[1])).to(like[0])
    ours = (a_BTD, normal(B, T, D, like=like), normal(B, D, like=like) * 0)
    arms = (Arm("seqloom", lambda *v: op(*v)[0], ours),)
    name = f"linear_scan, constant decay ({B}, {T}, {D})"
    return Case(name, arms, lambda: op.reference(*wide(ours))[0], B * T * D)


def short_conv(like, T=4096, B=8, D=2048, K=4) -> Case:
    op = of("short_conv")
    ours = (normal(B, T, D, like=like), normal(D, K, like=like), normal(D, like=like))

    def run(call: Any, *v: Tensor) -> Tensor:
        return call(*v, activation="silu")[0]

    def by_conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return silu(conv1d(pad(x.mT, (K - 1, 0)), weight[:, None], bias, groups=D)).mT

    arms = [
        Arm("seqloom", lambda *v: run(op, *v), ours),
        Arm("torch reference", lambda *v: run(op.reference, *v[:3], None, None, None), ours),
        Arm("torch conv1d", by_conv1d, ours),
    ]
    if not absent("fla.modules.causal_conv1d"):
        from fla.modules.causal_conv1d import causal_conv1d

        theirs = lambda x, w, b: causal_conv1d(x, w, b, activation="silu")[0]  # noqa: E731
        arms.append(Arm("fla causal_conv1d", theirs, ours))
    truth = lambda: run(op.reference, *wide(ours), None, None, None)  # noqa: E731
    return Case(f"short_conv ({B}, {T}, {D}), {K} taps", tuple(arms), truth, B * T * D * K)


def selective_scan(like, T=2048, B=8, E=2048, N=16) -> Case:
    op = of("selective_scan")
    x_BTE, dt_BTE = normal(B, T, E, like=like), softplus(normal(B, T, E, like=like).float() - 4).to(like[0])
    a_EN = -torch.arange(1.0, N + 1, device=like[1]).expand(E, N).contiguous()
    b_BTN, c_BTN = normal(B, T, N, like=like), normal(B, T, N, like=like)
    ours = (x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, torch.zeros(B, E, N, device=like[1]))
    arms = (Arm("seqloom", lambda *v: op(*v)[0], ours), Arm("torch loop", lambda *v: op.reference(*v)[0], ours))
    name, slow = f"selective_scan ({B}, {T}, {E}), N = {N}", frozenset({"torch loop"})
    return Case(name, arms, lambda: op.reference(*wide(ours))[0], 3 * B * T * E * N, slow)


def decay(like, T=2048, B=8, H=16, K=64, kind="head") -> Case:
    """Of a head (SSD, simple GLA), of every key channel (GLA), or constant (retention)."""
    op, gates = of("decay_attention"), {"head": (B, T, H, 1), "key": (B, T, H, K), "constant": (1, 1, H, 1)}
    q, k, v = (normal(B, T, H, K, like=like, scale=scale) for scale in (K**-0.5, 1, 1))
    g = logsigmoid(torch.randn(gates[kind], device=like[1])) / 16
    if kind == "constant":
        g = torch.log1p(-(2.0 ** (-5.0 - torch.arange(H, device=like[1])))).reshape(1, 1, H, 1)
    ours = (q, k, v, g, torch.zeros(B, H, K, K, device=like[1]))
    arms = [Arm("seqloom", lambda *v: op(*v)[0], ours), Arm("torch loop", lambda *v: op.reference(*v)[0], ours)]
    if not absent("fla.ops.gla"):
        from fla.ops.gla import chunk_gla
        from fla.ops.retention import chunk_retention
        from fla.ops.simple_gla import chunk_simple_gla

        simple = lambda q, k, v, g: chunk_simple_gla(q, k, v, g, scale=1.0)[0]  # noqa: E731
        full = lambda q, k, v, g: chunk_gla(q, k, v, g, scale=1.0)[0]  # noqa: E731
        fixed = lambda q, k, v: chunk_retention(q, k, v, scale=1.0)[0]  # noqa: E731
        arms += {
            "head": [Arm("fla chunk_simple_gla", simple, (q, k, v, g[..., 0].contiguous()))],
            "key": [Arm("fla chunk_gla", full, (q, k, v, g))],
            "constant": [Arm("fla chunk_retention", fixed, (q, k, v))],
        }[kind]
    name = f"decay_attention, decay of a {kind} ({B}, {T}, {H}, {K}, {K})".replace("a constant", "constants")
    truth = lambda: op.reference(*wide(ours))[0]  # noqa: E731
    return Case(name, tuple(arms), truth, 2 * B * T * H * K * K, frozenset({"torch loop"}))


def mlstm(like, T=2048, B=8, H=16, K=64) -> Case:
    call = of("normalised_decay_attention", "decay_attention")
    q, k, v = (normal(B, T, H, K, like=like, scale=scale) for scale in (1, K**-0.5, 1))
    i_BTH, f_BTH = normal(B, T, H, like=(torch.float32, like[1])), normal(B, T, H, like=(torch.float32, like[1])) + 4
    fresh = [torch.zeros(shape, device=like[1]) for shape in ((B, H, K, K), (B, H, K), (B, H))]

    def run(q: Tensor, k: Tensor, v: Tensor, f: Tensor, i: Tensor) -> Tensor:
        return call(q, k, v, logsigmoid(f), i, *(value.to(i.dtype) for value in fresh))[0]

    ours = (q, k, v, f_BTH, i_BTH)
    arms = [Arm("seqloom", run, ours)]
    if not absent("mlstm_kernels.torch.chunkwise.triton_xl_chunk"):
        from mlstm_kernels.torch.chunkwise.triton_xl_chunk import mlstm_chunkwise__xl_chunk

        turned = tuple(value.transpose(1, 2).contiguous() for value in (q, k * K**0.5, v, i_BTH, f_BTH))
        theirs = lambda *v: mlstm_chunkwise__xl_chunk(*v, autocast_kernel_dtype=like[0]).transpose(1, 2)  # noqa: E731
        arms.append(Arm("mlstm_kernels xl_chunk", theirs, turned))
    from seqloom.kernels._kernel import use_backend

    def truth() -> Tensor:
        with use_backend("reference"):
            return run(*wide(ours))

    return Case(f"mLSTM cell ({B}, {T}, {H}, {K}, {K})", tuple(arms), truth, 2 * B * T * H * K * K)


def gated_loop(like, T=512, B=8, H=8, K=64, cell="slstm") -> Case:
    op, home = of("gated_loop"), module("kernels", "gated_loop")
    gates, states = home.GATES[cell], home.STATES[cell]
    pre = normal(B, T, gates, H, K, like=like)
    weight = normal(gates, H, K, K, like=like, scale=K**-0.5)
    state = torch.zeros(states, B, H, K, device=like[1])
    if cell == "slstm":
        state[2] = home.NEVER
    ours = (pre, weight, state)
    arms = [
        Arm("seqloom", lambda p, w, s: op(p, w, s, cell=cell)[0], ours),
        Arm("torch loop", lambda p, w, s: op.reference(p, w, s, None, None, cell)[0], ours),
    ]
    if cell == "lstm" and H == 1:
        lstm = torch.nn.LSTM(K, K, batch_first=True).to(like[1], like[0])
        arms.append(Arm("torch.nn.LSTM (cuDNN)", lambda x: lstm(x)[0], (normal(B, T, K, like=like),)))
    truth = lambda: op.reference(*wide(ours), None, None, cell)[0]  # noqa: E731
    name, slow = f"gated_loop, {cell} ({B}, {T}, {H}, {K})", frozenset({"torch loop", "torch.nn.LSTM (cuDNN)"})
    return Case(name, tuple(arms), truth, B * T * gates * H * K * K, slow)


SINGLE, HALF = torch.float32, torch.bfloat16
SECTIONS: dict[str, list[tuple[str, torch.dtype, dict[str, Any]]]] = {
    "scans": [
        ("linear_scan", SINGLE, {}),
        ("linear_scan", HALF, {}),
        ("selective_scan", HALF, {}),
        ("selective_scan", SINGLE, {}),
        ("short_conv", HALF, {}),
        ("short_conv", SINGLE, {}),
        ("gated_loop", SINGLE, {}),
        ("gated_loop", HALF, {}),
        ("constant_scan", SINGLE, {}),
        ("gated_loop", SINGLE, {"cell": "lstm", "H": 1, "K": 128}),
    ],
    "decays": [
        ("decay", HALF, {}),
        ("decay", HALF, {"kind": "key"}),
        ("mlstm", HALF, {}),
        ("decay", HALF, {"K": 128}),
        ("mlstm", HALF, {"K": 128}),
        ("decay", HALF, {"kind": "constant"}),
        ("decay", SINGLE, {}),
        ("decay", SINGLE, {"kind": "key"}),
        ("mlstm", SINGLE, {}),
        ("decay", HALF, {"kind": "key", "K": 128}),
    ],
}
"""Most wanted first: what the time does not reach is left out and named."""
BUILD = {f.__name__: f for f in (linear_scan, constant_scan, short_conv, selective_scan, decay, mlstm, gated_loop)}
TINY = {"T": 64, "B": 2, "D": 32, "E": 32, "H": 2, "K": 16}


def build(section: str, number: int, device: str, *, small: bool = False, probe: bool = False) -> Case:
    """One case by its place in a section; ``probe`` is the same at few steps, ``small`` a try of the code itself."""
    name, dtype, options = SECTIONS[section][number]
    make = BUILD[name]
    sizes = dict(options)
    code = make.__code__.co_varnames[: make.__code__.co_argcount]
    if small:
        sizes |= {
            key: value for key, value in TINY.items() if key in code and not (key == "K" and name == "short_conv")
        }
    if probe:
        sizes |= {"T": 64 if small else min(PROBE, make.__defaults__[0]), "B": 2}
    torch.manual_seed(0)
    return make((dtype, device), **sizes)


def kernels_there() -> Iterator[str]:
    """Names of the kernels that have a form for the device."""
    for name in names("kernels"):
        op = of(name)
        if any(backend.package == "triton" for backend in op.backends):
            yield name
