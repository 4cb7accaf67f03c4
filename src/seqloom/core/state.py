"""What a mixer or a model remembers between calls: a frozen tree of batch-first tensors.

    y, state = mixer(x, mixer.initial_state(B));    y2, state = mixer(x2, state)

Shapes: B batch rows, R recorded points. Every tensor's first axis is the batch; ``length_B`` counts the
positions that each row has consumed. Reordering, moving, counting bytes and going back are written once here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Trail:
    """Earlier states, recorded where the layout's ``states_at`` asked; field name -> (B, R, ...)."""

    length_BR: Tensor
    tensors: dict[str, Any]
    """Tensors, or tuples and dicts of them; nested states have trails of their own."""


@dataclass(frozen=True, kw_only=True)
class State:
    """Base of every state.

    A call may write into the buffers of the state that it is given (key-value caches do): ``fork()`` before two
    different continuations of one state.
    """

    in_place: ClassVar[bool] = False
    """True where a call writes into the given state's buffers."""

    length_B: Tensor
    """Positions consumed so far, a row."""
    trail: Trail | None = None
    """Recorded earlier states of this call, if the layout asked for them."""

    def tensors(self) -> dict[str, Tensor]:
        """The state's own tensors by field name, without the trail and without nested states."""
        return {item.name: value for item in fields(self) if isinstance(value := getattr(self, item.name), Tensor)}

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor, nested states and the trail included."""
        return self._each(change, lambda state: state.map(change))

    def _each(self, change: Callable[[Tensor], Tensor], within: "Callable[[State], State]") -> Self:
        """``change`` every tensor of this state's own; nested states answer ``within`` by their own method."""
        return replace(self, **{item.name: _map(getattr(self, item.name), change, within) for item in fields(self)})

    def select(self, rows_R: Tensor) -> Self:
        """Rows in a new order; rows may be repeated (beam expansion) or left out (finished rows)."""
        return self._each(lambda tensor: tensor.index_select(0, rows_R), lambda state: state.select(rows_R))

    def fork(self) -> Self:
        """A state that can be continued independently of this one."""
        return self._each(torch.clone, lambda state: state.fork())

    def to(self, *where: Any) -> Self:
        """Move to a device; a dtype applies to floating tensors alone."""
        return self.map(lambda tensor: _to(tensor, *where))

    def detach(self) -> Self:
        """Cut the gradient (truncated backpropagation through time)."""
        return self.map(torch.Tensor.detach)

    @property
    def batch(self) -> int:
        """Rows."""
        return self.length_B.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of every tensor, without the trail."""
        return sum(tensor.numel() * tensor.element_size() for tensor in _leaves(self))

    def rollback(self, n_B: Tensor) -> Self:
        """Forget the last ``n_B`` positions of each row. ConfigError where the trail lacks the point."""
        if self.trail is None:
            if bool((n_B == 0).all()):
                return self
            raise ConfigError("this state can go back only to recorded points: ask for them with Layout(states_at=...)")
        length_BR = torch.cat([self.trail.length_BR, self.length_B[:, None]], 1)  # the last state is always at hand
        point_B = _point(length_BR, self.length_B - n_B)
        rows_B = torch.arange(len(point_B), device=point_B.device)
        earlier = {
            name: _join(
                [recorded, getattr(self, name)],
                lambda pair: torch.cat([pair[0], pair[1][:, None]], 1)[rows_B, point_B],
                lambda pair: pair[1].rollback(n_B),
            )
            for name, recorded in self.trail.tensors.items()
        }
        return replace(self, **earlier, length_B=self.length_B - n_B, trail=None)

    def recorded(self, points: Sequence[Self]) -> Self:
        """This state with a trail of earlier ones; nested states record by themselves."""
        if not points:
            return self
        own = {name: [getattr(p, name) for p in (*points, self)] for name in self._parts()}
        stacked = {
            name: _join(values[:-1], lambda several: torch.stack(several, 1), lambda several: None)
            for name, values in own.items()
        }
        inside = {
            name: _join(values, lambda several: several[-1], lambda several: several[-1].recorded(several[:-1]))
            for name, values in own.items()
        }
        length_BR = torch.stack([point.length_B for point in points], 1)
        return replace(self, **inside, trail=Trail(length_BR=length_BR, tensors=stacked))

    def where(self, keep_B: Tensor, other: Self) -> Self:
        """Rows of this state where ``keep_B``, of another one elsewhere."""

        def choose(pair: list[Tensor]) -> Tensor:
            return torch.where(keep_B.view(-1, *[1] * (pair[0].ndim - 1)), pair[0], pair[1])

        pairs = {name: [getattr(self, name), getattr(other, name)] for name in ("length_B", *self._parts())}
        chosen = {name: _join(p, choose, lambda pair: pair[0].where(keep_B, pair[1])) for name, p in pairs.items()}
        return replace(self, **chosen, trail=None)

    def _parts(self) -> list[str]:
        """Fields that hold tensors or states somewhere, the length and the trail left out."""
        names = [item.name for item in fields(self) if item.name not in ("length_B", "trail")]
        return [name for name in names if _leaves(getattr(self, name))]


@dataclass(frozen=True, kw_only=True)
class States(State):
    """The states of a model: one a layer, by name, and extras that travel with the rows (encoder outputs, pointers)."""

    layers: dict[str, State]
    extras: dict[str, Tensor | State]

    def rollback(self, n_B: Tensor) -> Self:
        """Every layer goes back by itself."""
        layers = {name: state.rollback(n_B) for name, state in self.layers.items()}
        return replace(self, layers=layers, length_B=self.length_B - n_B, trail=None)


def _point(length_BR: Tensor, wanted_B: Tensor) -> Tensor:
    """Index of the last recorded point at which each row had the wanted length.

    The last, for a packed row has the same lengths again in each of its segments.
    """
    hit_BR = length_BR == wanted_B[:, None]
    if not bool(hit_BR.any(1).all()):
        row = int((~hit_BR.any(1)).nonzero()[0])
        raise ConfigError(
            f"row {row} was not recorded at length {int(wanted_B[row])}; "
            f"its trail has {sorted(set(length_BR[row].tolist()))}"
        )
    return hit_BR.shape[1] - 1 - hit_BR.flip(1).int().argmax(1)


def _map(value: Any, change: Callable[[Tensor], Tensor], within: Callable[[State], State]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, State):
        return within(value)
    if isinstance(value, Trail):
        return Trail(length_BR=change(value.length_BR), tensors=_map(value.tensors, change, within))
    if isinstance(value, Mapping):
        return {key: _map(item, change, within) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_map(item, change, within) for item in value)
    return value


def _join(values: list[Any], leaf: Callable[[list[Any]], Any], within: Callable[[list[Any]], Any]) -> Any:
    """Trees of one shape as one: ``leaf`` of their tensors, ``within`` of their states, the rest as in the last."""
    last = values[-1]
    if isinstance(last, Tensor):
        return leaf(values)
    if isinstance(last, State):
        return within(values)
    if isinstance(last, Mapping):
        return {key: _join([value[key] for value in values], leaf, within) for key in last}
    if isinstance(last, tuple):
        return tuple(_join(list(items), leaf, within) for items in zip(*values, strict=True))
    return last


def _leaves(value: Any) -> list[Tensor]:
    """Every tensor of a tree, those of trails left out."""
    if isinstance(value, Tensor):
        return [value]
    inside: Iterable[Any] = ()
    if isinstance(value, State):
        inside = (getattr(value, item.name) for item in fields(value) if item.name != "trail")
    elif isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, tuple):
        inside = value
    return [leaf for item in inside for leaf in _leaves(item)]


def _to(tensor: Tensor, *where: Any) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor.to(*where)
    devices = [item for item in where if not isinstance(item, torch.dtype)]
    return tensor.to(*devices) if devices else tensor
