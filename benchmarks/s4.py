"""S4: its kernel against powers of the dense matrix, its layer against the bare convolution, its step and attention.

At N = 64. The Krylov matrix costs N^2 L by doubling, as the paper counts it; read out on two levels it costs far less,
which is why both stand here. Generation is a model of four layers: a new token by one step of S4, by attention over a
cache, and by attention that reads all 2048 tokens anew. Time against length is the Cauchy kernel alone, one channel.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from seqloom.core.batch import Batch
from seqloom.core.sizes import Sizes
from seqloom.core.steady import Steady
from seqloom.kernels.krylov import krylov, krylov_readout
from seqloom.mixers._base import Mixer
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.ssm.s4 import S4
from seqloom.models.backbone import Backbone
from seqloom.models.causal_lm import CausalLM
from seqloom.testing.benchmark import Case
from seqloom.testing.mixers import check_mixer

FLOOR = "bare rfft, multiply, irfft on (B, D, T)"
BARE = S4.Config(activation="none", output="none")


@cache
def check() -> None:
    for config in S4.Config(), BARE:
        check_mixer(config)


def cases() -> Iterator[Case]:
    yield kernels(16, 4096)
    yield training(4, 4096, 256)
    yield continuing(4, 4096, 256)
    yield generating(2048)
    yield lengths(1)


def kernels(D: int, L: int) -> Case:
    """All compute in float64; ours rounds its result to float32."""
    layer = S4(D, BARE)
    A, b, c = (x.detach() for x in layer.system().discrete().dense())
    b, c = b[..., None], c.transpose(0, 1)

    def equal() -> None:
        want = (c @ krylov(A, b, L)[..., 0])[:, 0]
        assert (layer.kernel(L)[0] - want).abs().max() < 1e-6 * want.abs().max()

    arms = {
        "generating function (Cauchy)": torch.no_grad()(lambda: layer.kernel(L)),
        "Krylov matrix, read out": lambda: c @ krylov(A, b, L)[..., 0],
        "Krylov on two levels": lambda: krylov_readout(A, b, c, L),
    }
    return Case(f"kernel, {D} channels of 64 states, {L} taps", arms, "Krylov matrix, read out", equal, 0.1, 7)


def bare(u_BDT: Tensor, k_DT: Tensor) -> Tensor:
    n = 2 * u_BDT.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u_BDT, n) * torch.fft.rfft(k_DT, n), n)[..., : u_BDT.shape[-1]]


def training(B: int, T: int, D: int) -> Case:
    x, dy, k = torch.randn(B, T, D).requires_grad_(), torch.randn(B, T, D), torch.randn(D, T).requires_grad_()
    turned, dy_turned = x.detach().transpose(1, 2).contiguous().requires_grad_(), dy.transpose(1, 2).contiguous()
    layer, whole = S4(D, BARE), S4(D)
    timed = [p for name, p in layer.named_parameters() if name != "skip"]
    arms = {
        "no mixing": lambda: torch.autograd.grad(layer(x)[0], (x, *layer.parameters()), dy),
        "paper's layer (GELU, GLU)": lambda: torch.autograd.grad(whole(x)[0], (x, *whole.parameters()), dy),
        "its kernel alone, 64 states": lambda: torch.autograd.grad(layer.kernel(T), timed, k.detach()[None]),
        FLOOR: lambda: torch.autograd.grad(bare(turned, k), (turned, k), dy_turned),
    }
    return Case(f"S4 forward + backward ({B}, {T}, {D})", arms, FLOOR, check, goal=2.0, rounds=7)


@torch.no_grad()
def continuing(B: int, T: int, D: int) -> Case:
    layer, x = S4(D, BARE), torch.randn(B, T, D)
    state = layer(x[:, :64], layer.initial_state(B))[1]
    arms = {
        "with a state": torch.no_grad()(lambda: layer(x, state)),
        "without one": torch.no_grad()(lambda: layer(x)),
    }
    return Case(f"S4 forward, no mixing ({B}, {T}, {D})", arms, "without one", check, rounds=5)


@torch.no_grad()
def generating(context: int) -> Case:
    tokens = torch.randint(6, 64, (1, context))

    def model(mixer: Mixer.Config) -> CausalLM:
        backbone = Backbone.Config(width=128, layers=4, mixers=(mixer,))
        return CausalLM(Sizes(vocabulary=64), CausalLM.Config(backbone=backbone)).eval()

    ours, theirs, empty = model(S4.Config()), model(Attention.Config()), Batch(index_B=torch.zeros(1, dtype=torch.long))
    state = ours.step(tokens, ours.start(empty))[1]
    cached = theirs.step(tokens, theirs.start(empty))[1]
    arms = {
        "S4, one step": torch.no_grad()(Steady()(lambda: ours.step(tokens[:, :1], state))),
        "attention, cached": torch.no_grad()(lambda: theirs.step(tokens[:, :1], cached.fork())),
        "attention, all tokens again": torch.no_grad()(lambda: theirs.step(tokens, theirs.start(empty))),
    }
    return Case(f"a token after {context}, width 128, 4 layers", arms, "attention, all tokens again", check, 0.05, 15)


def lengths(D: int) -> Case:
    """Time of 2^20 taps beside 2^10 .. 2^18; a slope of 1.25 from 2^14 on allows 2^(6 * 1.25) = 181 times."""
    layer = S4(D, BARE)
    arms = {
        f"2^{power} taps": torch.no_grad()(lambda L=1 << power: layer.kernel(L)) for power in (20, 18, 16, 14, 12, 10)
    }
    return Case(f"kernel against length, {D} channel of 64 states", arms, "2^14 taps", check, goal=181.0, rounds=5)
