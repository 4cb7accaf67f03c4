"""Attention against torch's own, and one decoding step against its bare products.

The kernel gives the log-sum-exp as well, in blocks of queries: its price over torch's causal attention, and what it
saves where torch needs a mask of all pairs (windows, packed rows, a chunk behind a cache). Forward with backward
everywhere but in the step.
"""

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.nn.functional import scaled_dot_product_attention as sdpa

from seqloom.kernels.block_attention import block_attention, block_attention_backward
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.attention.linear_attention import LinearAttention
from seqloom.testing.benchmark import Case
from seqloom.testing.kernels import check_kernel
from seqloom.testing.mixers import check_mixer

B, H, K = 4, 4, 64
WINDOW = 128


def cases() -> Iterator[Case]:
    for T in (256, 1024, 2048):
        yield kernel_case(f"causal, {T}", T, T, {"offset": 0}, {"is_causal": True}, goal=1.15)
    T = 1024
    near_TT = torch.ones(T, T, dtype=torch.bool).tril().triu(1 - WINDOW)
    yield kernel_case(f"window {WINDOW}, {T}", T, T, {"offset": 0, "window": WINDOW}, {"attn_mask": near_TT}, goal=0.6)
    column_T = torch.arange(T)
    span_1T2 = torch.stack([column_T // 256 * 256, column_T + 1], -1)[None]
    packed_TT = (column_T >= span_1T2[0, :, :1]) & (column_T < span_1T2[0, :, 1:])
    yield kernel_case(f"four packed segments, {T}", T, T, {"mask": span_1T2}, {"attn_mask": packed_TT}, goal=0.6)
    behind_TS = torch.ones(256, 2048, dtype=torch.bool).tril(2048 - 256)
    yield kernel_case("256 behind 1792", 256, 2048, {"offset": 1792}, {"attn_mask": behind_TS}, goal=1.15)
    for rows in (1, 8):
        yield step_case(rows)
    yield layer_case(2048)


def kernel_case(name: str, T: int, S: int, given: dict, theirs: dict, *, goal: float) -> Case:
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, n, H, K, generator=rng).transpose(1, 2).requires_grad_() for n in (T, S, S))
    weight = torch.randn(B, T, H, K, generator=rng).transpose(1, 2)

    def run(attend: Callable[..., Tensor], options: dict) -> Callable[[], object]:
        return lambda: torch.autograd.grad(attend(q, k, v, **options), (q, k, v), weight)

    def ours(*inputs: Tensor, **options) -> Tensor:
        return block_attention(*inputs, **options)[0]

    arms = {"block_attention": run(ours, given), "torch": run(sdpa, theirs)}
    return Case(name, arms, "torch", check_kernels, goal)


def step_case(rows: int) -> Case:
    """One token of one layer of width 256 behind 255 others."""
    torch.manual_seed(0)
    mixer = Attention(256).eval()
    with torch.no_grad():
        held = mixer(torch.randn(rows, 255, 256), mixer.initial_state(rows, capacity=256))[1]
    x_B1D = torch.randn(rows, 1, 256)
    q_BH1K = torch.randn(rows, H, 1, K)

    @torch.no_grad()
    def step() -> object:
        return mixer(x_B1D, held)

    @torch.no_grad()
    def bare() -> object:
        linear(x_B1D, mixer.qkv.weight)
        sdpa(q_BH1K, held.k_BGLK, held.v_BGLK)
        return linear(x_B1D, mixer.out.weight)

    return Case(
        f"one step, {rows} row(s)", {"Attention": step, "its products": bare}, "its products", check_mixers, 4.0
    )


def layer_case(T: int) -> Case:
    torch.manual_seed(0)
    mixers = {"LinearAttention": LinearAttention(256), "Attention": Attention(256)}
    x_BTD = torch.randn(B, T, 256, requires_grad=True)

    def run(layer: Callable[[Tensor], Tensor], *weights: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(layer(x_BTD).sum(), (x_BTD, *weights))

    arms = {name: run(lambda x, mixer=mixer: mixer(x)[0], *mixer.parameters()) for name, mixer in mixers.items()}
    maps = torch.randn(768, 256, requires_grad=True), torch.randn(256, 768, requires_grad=True)
    arms["its projections"] = run(lambda x: linear(linear(x, maps[0]), maps[1]), *maps)
    return Case(f"whole layer, {T}", arms, "its projections", check_mixers, None, rounds=5)


@cache
def check_kernels() -> None:
    check_kernel(block_attention)
    check_kernel(block_attention_backward)


@cache
def check_mixers() -> None:
    check_mixer(Attention.Config())
    check_mixer(LinearAttention.Config())
