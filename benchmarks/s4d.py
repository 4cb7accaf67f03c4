"""S4D against the bare convolution of its size: the layer forward and backward, and its ways with a state."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from seqloom.mixers.ssm.s4d import S4D
from seqloom.testing.benchmark import Case
from seqloom.testing.mixers import check_mixer

FLOOR = "bare rfft, multiply, irfft on (B, D, T)"
BARE = S4D.Config(activation="none", output="none")
LINEAR = S4D.Config(output="linear")


@cache
def check() -> None:
    for config in S4D.Config(), BARE, LINEAR:
        check_mixer(config)


def cases() -> Iterator[Case]:
    yield training(4, 4096, 256)
    yield continuing(4, 4096, 256)
    for B in 1, 8:
        yield stepping(B, 256)


def bare(u_BDT: Tensor, k_DT: Tensor) -> Tensor:
    n = 2 * u_BDT.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u_BDT, n) * torch.fft.rfft(k_DT, n), n)[..., : u_BDT.shape[-1]]


def training(B: int, T: int, D: int) -> Case:
    x, dy, k = torch.randn(B, T, D).requires_grad_(), torch.randn(B, T, D), torch.randn(D, T).requires_grad_()
    turned, dy_turned = x.detach().transpose(1, 2).contiguous().requires_grad_(), dy.transpose(1, 2).contiguous()
    layers = {"paper's layer (GELU, GLU)": S4D(D), "no mixing": S4D(D, BARE), "GELU, linear": S4D(D, LINEAR)}

    def whole(layer: S4D) -> object:
        return torch.autograd.grad(layer(x)[0], (x, *layer.parameters()), dy)

    def kernel_alone() -> object:
        bank = layers["no mixing"].bank
        return torch.autograd.grad(bank.kernels(T), tuple(bank.parameters()), k.detach()[None])

    def mixing_alone() -> object:
        layer = layers["paper's layer (GELU, GLU)"]
        return torch.autograd.grad(layer.after(x), (x, *layer.after.parameters()), dy)

    order = ("no mixing", "GELU, linear", "paper's layer (GELU, GLU)")
    arms = {label: lambda label=label: whole(layers[label]) for label in order}
    arms["GELU and GLU alone"] = mixing_alone
    arms["its kernel alone, 64 states"] = kernel_alone
    arms[FLOOR] = lambda: torch.autograd.grad(bare(turned, k), (turned, k), dy_turned)
    return Case(f"S4D forward + backward ({B}, {T}, {D})", arms, FLOOR, check, goal=1.5, rounds=7)


@torch.no_grad()
def continuing(B: int, T: int, D: int) -> Case:
    layer, x = S4D(D, BARE), torch.randn(B, T, D)
    state = layer(x, layer.initial_state(B))[1]
    arms = {
        "with a state": torch.no_grad()(lambda: layer(x, state)),
        "without one": torch.no_grad()(lambda: layer(x)),
    }
    return Case(f"S4D forward, no mixing ({B}, {T}, {D})", arms, "without one", check, rounds=7)


@torch.no_grad()
def stepping(B: int, D: int) -> Case:
    layer, x = S4D(D, BARE), torch.randn(B, 16, D)
    state = layer(x, layer.initial_state(B))[1]
    out = state.h_BDX.clone()
    arms = {
        "one step": torch.no_grad()(lambda: layer(x[:, :1], state)),
        "16 columns": torch.no_grad()(lambda: layer(x, state)),
        "copy of the state": lambda: out.copy_(state.h_BDX),
    }
    return Case(f"S4D step, no mixing ({B}, 1, {D})", arms, "copy of the state", check, rounds=101)
