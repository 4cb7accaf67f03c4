"""A kernel is one meaning with many speeds.

The decorated function's body is the reference: plain torch, differentiable, right at T = 0. Shapes rule,
backward, cost and cases are written once beside it; sibling files ``<package>_<device>.py`` hold backends
(``forward(*inputs)`` and ``refuses(*inputs) -> str | None``) that only go faster. Each backend becomes a torch
custom op, so that torch.compile traces through it and torch.library.opcheck judges it.
"""

import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError

_FORCED: list[str | None] = [None]  # a plain global: dynamo traces through it, a ContextVar breaks the graph


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run every kernel by one backend ("reference", "numba_cpu", "triton_cuda"), refusals becoming errors."""
    before, _FORCED[0] = _FORCED[0], name
    try:
        yield
    finally:
        _FORCED[0] = before


@dataclass(frozen=True)
class Cost:
    """The least that a call must do: multiply-adds, and bytes read and written once."""

    macs: int
    bytes: int


@dataclass(frozen=True)
class Verdict:
    """Whether one backend would run a call, and if not, why."""

    backend: str
    runs: bool
    reason: str


@dataclass(frozen=True)
class Backend:
    """One faster form of a kernel."""

    name: str
    device: str
    package: str
    module: ModuleType
    op: Any

    def refuses(self, inputs: tuple[Any, ...], *, forced: bool = False) -> str | None:
        """Why this backend cannot run these inputs; None where it can."""
        where = next(value.device.type for value in inputs if isinstance(value, Tensor))
        interpreted = forced and self.package == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
        if where != self.device and not interpreted:
            return f"the tensors are on {where}, not on {self.device}"
        return self.module.refuses(*inputs)


class Kernel:
    """A public function with a reference body and faster backends. Made by ``@kernel``."""

    def __init__(self, reference: Callable[..., Any]) -> None:
        """Keep the reference; the rest is added by the decorators ``shapes``, ``vjp``, ``cost`` and ``cases``."""
        self.reference = reference
        self.name = reference.__name__
        self.__doc__, self.__name__, self.__module__ = reference.__doc__, reference.__name__, reference.__module__
        self.__wrapped__ = reference
        parameters = inspect.signature(reference).parameters.values()
        self._defaults = tuple((item.name, item.default) for item in parameters)
        self._shapes: Callable[..., Any] | None = None
        self._vjp: Callable[..., Any] | None = None
        self._cost: Callable[..., Cost] | None = None
        self._cases: Callable[..., Iterator[tuple[Any, ...]]] | None = None
        self._found: tuple[Backend, ...] | None = None
        self.absent: dict[str, str] = {}

    def shapes(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: empty outputs of the right shapes, strides and dtypes."""
        self._shapes = rule
        return rule

    def vjp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: ``backward(grads, inputs, outputs) -> gradients``, one an input, None where there is none."""
        self._vjp = rule
        return rule

    def cost(self, rule: Callable[..., Cost]) -> Callable[..., Cost]:
        """Decorator: the floor of a call."""
        self._cost = rule
        return rule

    def cases(self, rule: Callable[..., Iterator[tuple[Any, ...]]]) -> Callable[..., Iterator[tuple[Any, ...]]]:
        """Decorator: ``generate(rng, dtype)`` yields inputs for tests and benchmarks, smallest first, odd sizes."""
        self._cases = rule
        return rule

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run by the fastest backend that does not refuse, or by the reference."""
        if named or len(inputs) < len(self._defaults):
            inputs = self._bind(inputs, named)
        backend = self._choose(inputs)
        return self.reference(*inputs) if backend is None else backend.op(*inputs)

    def generate(self, rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
        """The cases that tests and benchmarks share."""
        if self._cases is None:
            raise ConfigError(f"the kernel {self.name} has no cases")
        for case in self._cases(rng, dtype):
            yield self._bind(case, {})

    def floor(self, *inputs: Any) -> Cost:
        """The least that a call with these inputs must do."""
        if self._cost is None:
            raise ConfigError(f"the kernel {self.name} has no cost formula")
        return self._cost(*self._bind(inputs, {}))

    @property
    def backends(self) -> tuple[Backend, ...]:
        """Backends whose package is installed, in the order of their files' names."""
        if self._found is None:
            self._found = tuple(self._load())
        return self._found

    def explain(self, *inputs: Any) -> list[Verdict]:
        """Who would run this call, and why the others would not."""
        inputs = self._bind(inputs, {})
        chosen = self._choose(inputs)
        verdicts = [Verdict(name, False, why) for name, why in self.absent.items()]
        for backend in self.backends:
            reason = backend.refuses(inputs)
            runs = backend is chosen
            verdicts.append(Verdict(backend.name, runs, reason or ("runs" if runs else "another backend comes first")))
        return [*verdicts, Verdict("reference", chosen is None, "runs" if chosen is None else "a backend is faster")]

    def _bind(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        rest = []
        for name, default in self._defaults[len(inputs) :]:
            value = named.pop(name, default)
            if value is inspect.Parameter.empty:
                raise TypeError(f"{self.name} needs the argument {name}")
            rest.append(value)
        if named or len(inputs) > len(self._defaults):
            raise TypeError(f"{self.name} takes {[name for name, _ in self._defaults]}, not {sorted(named)}")
        return (*inputs, *rest)

    def _choose(self, inputs: tuple[Any, ...]) -> Backend | None:
        forced = _FORCED[0]
        if forced == "reference":
            return None
        for backend in self.backends:
            if forced is None and backend.refuses(inputs) is None:
                return backend
            if forced == backend.name:
                reason = backend.refuses(inputs, forced=True)
                if reason is None:
                    return backend
                raise ConfigError(f"{self.name}: {forced} cannot run this call: {reason}")
        return None

    def _load(self) -> Iterator[Backend]:
        home = importlib.import_module(self.__module__)
        if home.__file__ is None or Path(home.__file__).stem != "__init__":
            return
        for file in sorted(Path(home.__file__).parent.glob("[!_]*_*.py")):
            package, device = file.stem.rsplit("_", 1)
            if importlib.util.find_spec(package) is None:
                self.absent[file.stem] = f"{package} is not installed"
                continue
            module = importlib.import_module(f"{self.__module__}.{file.stem}")
            forms = getattr(module, "FORWARDS", {self.name: getattr(module, "forward", None)})
            if forms.get(self.name) is not None:
                yield Backend(file.stem, device, package, module, self._custom_op(file.stem, forms[self.name]))

    def _custom_op(self, backend: str, forward: Callable[..., Any]) -> Any:
        if self._shapes is None:
            raise ConfigError(f"the kernel {self.name} needs a shapes rule before it can have backends")
        schema = torch.library.infer_schema(self.reference, mutates_args=())
        op = torch.library.custom_op(f"seqloom::{self.name}_{backend}", forward, mutates_args=(), schema=schema)
        op.register_fake(self._shapes)
        if self._vjp is not None:
            op.register_autograd(_backward_of(self._vjp), setup_context=_keep)
        return op


def kernel(reference: Callable[..., Any]) -> Kernel:
    """Make a public function a kernel; its body is its meaning."""
    return Kernel(reference)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    outputs = output if isinstance(output, tuple) else (output,)
    ctx.constants = tuple(None if isinstance(value, Tensor) else value for value in inputs)
    ctx.is_tensor = tuple(isinstance(value, Tensor) for value in inputs)
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)), *outputs)


def _backward_of(vjp: Callable[..., Any]) -> Callable[..., Any]:
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        inputs = tuple(
            saved.pop(0) if tensor else value for tensor, value in zip(ctx.is_tensor, ctx.constants, strict=True)
        )
        outputs = tuple(saved)
        full = tuple(torch.zeros_like(out) if grad is None else grad for grad, out in zip(grads, outputs, strict=True))
        return tuple(vjp(full, inputs, outputs))

    return backward
