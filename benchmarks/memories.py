"""The delta rule against its step loop, memories against one, a tree search against everything, sparse activation.

The delta rule on a processor goes step by step through panels of channels; beside it stands its chunked form, and the
matrix products and triangular systems alone of which that consists, one batched call each. A mixture of memories is
held against one memory of the same rule times the memories at work. HiP is timed at 65,536 tokens with its default
budget, on keys and queries whose scores change slowly, as trained ones do; SeqBoat by the share of positions that its
router lets attend.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from seqloom.kernels._kernel import use_backend
from seqloom.kernels.block_attention import block_attention
from seqloom.kernels.delta_rule import delta_rule
from seqloom.layers.router import Router
from seqloom.layers.tree_attention import TreeAttention
from seqloom.mixers.attention.prob_sparse import ProbSparse
from seqloom.mixers.hybrid.seqboat import SeqBoat
from seqloom.mixers.memory.gated_delta import GatedDelta
from seqloom.mixers.memory.mom import MoM
from seqloom.testing.benchmark import Case
from seqloom.testing.kernels import check_kernel

CHUNK = 64


@cache
def check() -> None:
    check_kernel(delta_rule, "numba_cpu")
    check_kernel(delta_rule, "torch_cpu")


def cases() -> Iterator[Case]:
    yield forward(2, 2048, 4, 64)
    yield training(2, 2048, 4, 64)
    for outlets, top in ((4, 2), (8, 2)):
        yield mixture(2, 1024, 128, outlets, top)
    for length in (8192, 65536):
        yield search(length)
    for share in (0.0, 0.1, 0.5):
        yield sparse(4096, share)
    counted()


def draw(B: int, T: int, H: int, K: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(B, T, H, K) for _ in range(3))
    k = k / k.norm(dim=-1, keepdim=True)
    return q, k, v, -0.1 * torch.rand(B, T, H), torch.rand(B, T, H), torch.randn(B, H, K, K)


def floor_of(B: int, T: int, H: int, K: int) -> Callable[[], object]:
    """The products and systems alone, on data of the right shapes."""
    rows = B * H * (T // CHUNK)
    q, k, v = (torch.randn(rows, CHUNK, K) for _ in range(3))
    s, system = torch.randn(rows, K, K), 0.1 * torch.randn(rows, CHUNK, CHUNK).tril(-1)
    sides = torch.cat([k, v], 2)

    def work() -> object:
        both = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
        return k @ k.mT, both[..., :K] @ s, (q @ k.mT) @ v + q @ s, k.mT @ v

    return work


def chunked(given: Sequence[Tensor]) -> Tensor:
    with use_backend("torch_cpu"):
        return delta_rule(*given)[0]


def forward(B: int, T: int, H: int, K: int) -> Case:
    given = draw(B, T, H, K)
    arms = {
        "delta_rule": lambda: delta_rule(*given),
        "chunked": lambda: chunked(given),
        "step loop": lambda: delta_rule.reference(*given),
        "its products and systems alone": floor_of(B, T, H, K),
    }
    return Case(f"delta rule, forward ({B}, {T}, {H}, {K}, {K})", arms, "step loop", check, goal=0.1, rounds=5)


def training(B: int, T: int, H: int, K: int) -> Case:
    given = [value.requires_grad_() for value in draw(B, T, H, K)]
    dy = torch.randn(B, T, H, K)
    arms = {
        "delta_rule": lambda: torch.autograd.grad(delta_rule(*given)[0], given, dy),
        "chunked": lambda: torch.autograd.grad(chunked(given), given, dy),
        "autograd through the loop": lambda: torch.autograd.grad(delta_rule.reference(*given)[0], given, dy),
    }
    name = f"delta rule, forward and backward ({B}, {T}, {H}, {K}, {K})"
    return Case(name, arms, "autograd through the loop", check, goal=0.1, rounds=3)


def mixture(B: int, T: int, D: int, outlets: int, top: int) -> Case:
    torch.manual_seed(0)
    several, one = MoM(D, MoM.Config(router=Router.Config(outlets=outlets, top=top))), GatedDelta(D)
    x_BTD, dy_BTD = torch.randn(B, T, D), torch.randn(B, T, D)

    def step(mixer: torch.nn.Module) -> None:
        for _ in range(1 if mixer is several else top + 1):
            mixer(x_BTD)[0].backward(dy_BTD)

    arms = {"mom": lambda: step(several), f"gated_delta, {top + 1} times": lambda: step(one)}
    name = f"{outlets} memories, {top} and the shared one at work, forward and backward ({B}, {T}, {D})"
    return Case(name, arms, f"gated_delta, {top + 1} times", lambda: None, goal=1.5, rounds=7)


@torch.no_grad()
def search(length: int) -> Case:
    """Two heads of 64 channels: slow drifts, plus what belongs to a place alone."""
    torch.manual_seed(0)

    def slow() -> Tensor:
        rough = torch.nn.functional.interpolate(torch.randn(2, 64, length // 32), length, mode="linear")
        return (rough + 0.3 * torch.randn(2, 64, length)).mT[None].contiguous()

    q, k, v, layer = slow(), slow(), slow(), TreeAttention()
    start = torch.zeros(1, dtype=torch.long)

    def close() -> None:
        """The quality is printed, and bounded by nothing but sense."""
        got, want = layer(q, k, v, start), block_attention(q, k, v, None, 0)[0]
        print(f"   error over size of full attention's output: {float((got - want).norm() / want.norm()):.3f}")
        print(f"   scores over all pairs: {layer.scores(1, length) / (length * (length + 1) / 2):.4f}")

    arms = {"hip": lambda: layer(q, k, v, start), "full": lambda: block_attention(q, k, v, None, 0)}
    case = {8192: None, 65536: 0.25}[length]
    return Case(f"HiP, {length} tokens, two heads of 64", _quiet(arms), "full", close, goal=case, rounds=3)


def sparse(length: int, share: float) -> Case:
    """The router's second logit is set so that about this share of positions attends."""
    torch.manual_seed(0)
    some, all_of = (SeqBoat(64, SeqBoat.Config(window=256)) for _ in range(2))
    x_BTD = torch.randn(1, length, 64)
    with torch.no_grad():
        m_BTD = torch.nn.functional.silu(some.ema(x_BTD)[0])
        logit = m_BTD @ (some.route.weight[1] - some.route.weight[0])
        edge = float(logit.flatten().quantile(1 - share)) if share else math.inf
        some.route.bias.copy_(torch.tensor([min(edge, 1e6), 0.0]))
        all_of.route.bias.copy_(torch.tensor([-1e6, 0.0]))

    def told() -> None:
        print(f"   share of positions that attend: {float(some.choose(m_BTD)[0].float().mean()):.3f}")

    arms = {"some": lambda: some(x_BTD), "every position": lambda: all_of(x_BTD)}
    return Case(f"SeqBoat, {length} tokens, {share:.0%} attend", _quiet(arms), "every position", told, rounds=7)


def _quiet(arms: dict[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    return {name: torch.no_grad()(run) for name, run in arms.items()}


def counted() -> None:
    """Score evaluations and how fast they grow: exponent of the last doubling, and over T log T."""
    for name, scores in {
        "HiP": lambda T: TreeAttention().scores(1, T),
        "ProbSparse": lambda T: sum(ProbSparse(8).amounts(T)) * T,
    }.items():
        rows = {T: scores(T) for T in (4096, 16384, 65536)}
        slope = math.log2(rows[65536] / rows[16384]) / 2
        over = [count / (T * math.log2(T)) for T, count in rows.items()]
        print(f"   {name}: {rows} scores, exponent {slope:.3f}, over T log T {', '.join(f'{x:.0f}' for x in over)}")
