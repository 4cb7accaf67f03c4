"""Routing: items sorted into groups without changing their order, moved there, and moved back.

    place_n = number of earlier items of the same group        order = items of group 0, then of group 1, ...

The sort is stable, since inside a group the order is time. An item of group -1 goes nowhere: its place is -1, and it
stands at the end of ``order``. Moving is a gather whose derivative is the gather the other way, so that nothing is
ever added into a tensor in an order that depends on threads.

    routes = Routes.of(group_BTK, groups=4)      K groups a position, of each row its own
    x_PD = routes.line(x_BTD)                    in line: sorted by group, then row, then time
    x_RLD = routes.rows(x_PD)                    rows g * B + b, right-padded, lengths in routes.lengths_R
    y_BTKD = routes.scatter(y_PD)                back, one result a choice, zeros where there was none

Shapes: N items, G groups, P places, E channels; B batch, T time, K choices, R = G B rows, L columns a row, D width.
Source: Fedus, Zoph and Shazeer, "Switch transformers", 2021, arXiv:2101.03961, section 2.2 (routing; there with a
capacity, beyond which items are dropped); Gale et al., "MegaBlocks", 2022, arXiv:2211.15841 (without one).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel


@kernel
def route(group_N: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the place of every item in its group (N), the items in order (N), and the groups' sizes (G).

    Raises:
        ConfigError: a group is neither -1 nor below ``groups``.
    """
    if group_N.numel() and not -1 <= int(group_N.min()) <= int(group_N.max()) < groups:
        raise ConfigError(f"route: groups lie in -1..{groups - 1}, not {int(group_N.min())}..{int(group_N.max())}")
    order_N = torch.where(group_N < 0, groups, group_N).argsort(stable=True)
    count_G = group_N[group_N >= 0].bincount(minlength=groups).to(group_N.dtype)
    start_G = count_G.cumsum(0) - count_G
    column_N = torch.arange(len(group_N), device=group_N.device)
    rank_N = torch.empty_like(order_N).index_copy_(0, order_N, column_N)
    place_N = rank_N - start_G[group_N.clamp_min(0)] if groups else rank_N
    return torch.where(group_N < 0, -1, place_N), order_N, count_G


@route.shapes
def shapes(group_N: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(group_N), torch.empty_like(group_N), group_N.new_empty(groups)


@route.cost
def cost(group_N: Tensor, groups: int) -> Cost:
    """Three passes over the items and one over the groups."""
    return Cost(0, 3 * group_N.nbytes + group_N.itemsize * groups)


@route.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Items that go nowhere, groups without items, all in one group, no group."""
    yield torch.tensor([0]), 1
    yield torch.tensor([1, -1, 0, 1, -1, 1]), 3
    yield torch.zeros(0, dtype=torch.long), 2
    yield torch.full((7,), 2), 4
    yield torch.full((3,), -1), 2
    yield torch.full((3,), -1), 0
    yield torch.randint(-1, 9, (211,), generator=rng), 9


@kernel
def routed(x_NE: Tensor, index_P: Tensor, back_NK: Tensor) -> Tensor:
    """Return y_PE with y_p = x_(index_p), zeros where the index is -1.

    Args:
        x_NE: items.
        index_P: the item that stands in each place.
        back_NK: the places in which an item stands, -1 where there are fewer than K: the derivative reads it.
    """
    wrong = mismatch(x_NE, index_P, back_NK)
    if wrong is not None:
        raise ConfigError(f"routed: {wrong}")
    if not len(x_NE):
        return x_NE.sum(0).expand(len(index_P), -1).clone()  # zeros, and a graph that leads to the items
    y_PE = x_NE.index_select(0, index_P.clamp_min(0))
    return y_PE.masked_fill((index_P < 0)[:, None], 0)


@routed.shapes
def routed_shapes(x_NE: Tensor, index_P: Tensor, back_NK: Tensor) -> Tensor:
    return x_NE.new_empty(len(index_P), x_NE.shape[1])


@routed.vjp(inputs=("index_P", "back_NK"), outputs=())
def backward(grads: tuple[Tensor, ...], inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The gather the other way."""
    (dy_PE,), (_, index_P, back_NK) = grads, inputs
    item_N = torch.arange(back_NK.numel(), device=back_NK.device)
    at_P1 = _inverse(back_NK.flatten(), len(index_P), item_N)
    dx_NE = routed(dy_PE, back_NK.flatten(), at_P1)
    return dx_NE.unflatten(0, back_NK.shape).sum(1) if back_NK.shape[1] != 1 else dx_NE, None, None


@routed.cost
def routed_cost(x_NE: Tensor, index_P: Tensor, back_NK: Tensor) -> Cost:
    """Each place is read and written once."""
    return Cost(0, 2 * len(index_P) * x_NE.shape[1] * x_NE.itemsize + index_P.nbytes)


@routed.cases
def routed_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Places that stay empty, items that stand twice, once or nowhere, no item."""
    for size, choices, places in ((1, 1, 1), (3, 2, 6), (0, 2, 4), (5, 1, 2), (23, 3, 80)):
        wanted = torch.rand(size * choices, generator=rng) < 0.8
        some = torch.randperm(max(places, size * choices), generator=rng)[: size * choices]
        back_NK = torch.where(wanted & (some < places), some, -1).reshape(size, choices)
        index_P = _inverse(back_NK.flatten(), places, torch.arange(size).repeat_interleave(choices))[:, 0]
        yield torch.randn(size, 4, generator=rng, dtype=dtype), index_P, back_NK


def _inverse(place_N: Tensor, places: int, item_N: Tensor) -> Tensor:
    """(P, 1): the item whose place it is, -1 where there is none."""
    item_P = place_N.new_full((places + 1,), -1)
    item_P[place_N] = torch.where(place_N < 0, -1, item_N)  # place -1 is the one behind the last
    return item_P[:places, None]


def mismatch(x_NE: Tensor, index_P: Tensor, back_NK: Tensor) -> str | None:
    if x_NE.ndim != 2 or index_P.ndim != 1 or back_NK.ndim != 2 or len(back_NK) != len(x_NE):
        return f"items {tuple(x_NE.shape)}, index {tuple(index_P.shape)} and places {tuple(back_NK.shape)} do not fit"
    return None


@dataclass(frozen=True)
class Routes:
    """Where each choice of each position goes: into a line of all choices, sorted by group, then row, then time."""

    place_BTK: Tensor
    """Place of each choice in the line, -1 = none."""
    item_P: Tensor
    """The position b * T + t that stands in each place."""
    lengths_GB: Tensor
    """How many of the line's places each group has of each row."""

    @classmethod
    def of(cls, group_BTK: Tensor, groups: int) -> Self:
        """Sort each row's choices into its own groups, in the order of time; -1 = nowhere."""
        B, _, K = group_BTK.shape
        row_B11 = torch.arange(B, device=group_BTK.device)[:, None, None]
        row_N = torch.where(group_BTK < 0, -1, group_BTK * B + row_B11).flatten()
        place_N, order_N, length_R = route(row_N, groups * B)
        start_R = length_R.cumsum(0) - length_R
        place_N = torch.where(row_N < 0, -1, place_N + start_R[row_N.clamp_min(0)])
        item_P = order_N[: int(length_R.sum())] // K
        return cls(place_N.view(group_BTK.shape), item_P, length_R.view(groups, B))

    def latest(self, most_B: Tensor, group_BTK: Tensor) -> Self:
        """Routes in which each group of row b keeps the ``most_b`` latest of the positions that these groups have.

        Which ones depends on what comes after: a capacity sees the future.
        """
        groups, B = self.lengths_GB.shape
        row_BTK = group_BTK.clamp_min(0) * B + torch.arange(B, device=group_BTK.device)[:, None, None]
        behind_BTK = self.lengths_R.cumsum(0)[row_BTK] - self.place_BTK
        return type(self).of(torch.where(behind_BTK > most_B[:, None, None], -1, group_BTK), groups)

    def line(self, x_BTD: Tensor) -> Tensor:
        """The positions in line (P, D), each as often as it was chosen."""
        return routed(x_BTD.flatten(0, 1), self.item_P, self.place_BTK.flatten(0, 1))

    def scatter(self, y_PD: Tensor) -> Tensor:
        """What each choice of each position got (B, T, K, D), zeros where it went nowhere."""
        place_N = self.place_BTK.flatten()
        back_P1 = _inverse(place_N, len(self.item_P), torch.arange(len(place_N), device=place_N.device))
        return routed(y_PD, place_N, back_P1).view(*self.place_BTK.shape, y_PD.shape[1])

    @property
    def lengths_R(self) -> Tensor:
        """Positions of each row of ``rows``: row g * B + b."""
        return self.lengths_GB.flatten()

    def rows(self, y_PD: Tensor) -> Tensor:
        """The line cut into one row for each group of each row (R, L, D), zeros behind them."""
        at_RL, where_P1 = self._cut()
        return routed(y_PD, at_RL.flatten(), where_P1).view(*at_RL.shape, y_PD.shape[1])

    def unrows(self, y_RLD: Tensor) -> Tensor:
        """Back into line; what stands behind a row's length is left out."""
        at_RL, where_P1 = self._cut()
        return routed(y_RLD.flatten(0, 1), where_P1[:, 0], at_RL.flatten()[:, None])

    def compact(self, x_BTD: Tensor) -> Tensor:
        """The chosen positions of each group of each row side by side (R, L, D)."""
        return self.rows(self.line(x_BTD))

    def _cut(self) -> tuple[Tensor, Tensor]:
        """The line's place that stands in each column of each row (R, L), -1 = none, and the inverse (P, 1)."""
        lengths_R = self.lengths_R
        longest = int(lengths_R.max()) if len(lengths_R) else 0
        column_L = torch.arange(longest, device=lengths_R.device)
        used_RL = column_L < lengths_R[:, None]
        start_R1 = (lengths_R.cumsum(0) - lengths_R)[:, None]
        at_RL = torch.where(used_RL, start_R1 + column_L, -1)
        return at_RL, used_RL.flatten().nonzero()
