"""While a model is only read: what follows from its parameters alone is computed once.

    steady = Steady()
    for token in tokens:
        with steady:
            logits, state = model.step(token, state)

A step of a state-space model is a few products, and the discretisation before them ten times as much. Whoever steps
knows that no parameter changes meanwhile, which a module cannot know of itself; what is kept lives and dies with the
caller's ``Steady``, never on a module. Where a gradient is wanted, or a graph is being compiled, nothing is kept.

Shapes: none.
"""

import threading
from collections.abc import Callable, Hashable
from contextlib import ContextDecorator
from functools import wraps
from typing import Any, TypeVar, TypeVarTuple

import torch

Owner = TypeVar("Owner")
Args = TypeVarTuple("Args")
Value = TypeVar("Value")


class Steady(ContextDecorator):
    """Keeps the values of ``derived`` methods while parameters stay: inside ``with``, or a function it decorates."""

    def __init__(self) -> None:
        """Nothing kept yet."""
        self._values: dict[Hashable, tuple[Any, Any]] = {}

    def __enter__(self) -> "Steady":
        """From here on this thread's calls are answered from here."""
        _open().append(self)
        return self

    def __exit__(self, *error: object) -> None:
        """Back to what was open before; what is kept stays for the next time."""
        _open().pop()

    def value(self, owner: Any, key: Hashable, make: Callable[[], Value]) -> Value:
        """What was made for this owner and key, or is made now."""
        place = (id(owner), key)
        if place not in self._values:
            self._values[place] = (owner, make())  # the owner is kept alive, so that its id stays its own
        return self._values[place][1]


class _Thread(threading.local):
    def __init__(self) -> None:
        self.open: list[Steady] = []


_HERE = _Thread()


def _open() -> list[Steady]:
    return _HERE.open


def derived(method: Callable[[Owner, *Args], Value]) -> Callable[[Owner, *Args], Value]:
    """Decorator of a method whose value follows from its object's parameters and from hashable arguments alone."""

    @wraps(method)
    def call(self: Owner, *args: *Args) -> Value:
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not _open():
            return method(self, *args)
        return _open()[-1].value(self, (method.__qualname__, args), lambda: method(self, *args))

    return call
