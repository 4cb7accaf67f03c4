"""A kernel is one meaning with many speeds.

The decorated function's body is the reference: plain torch, differentiable, right at T = 0. Shapes rule,
backward, cost and cases are written once beside it; sibling files ``<package>_<device>.py`` hold backends
(``forward(*inputs)`` and ``refuses(*inputs) -> str | None``; ``FORWARDS`` by name where one file serves several
kernels) that only go faster. Each backend becomes a torch custom op, so that torch.compile traces through it and
torch.library.opcheck judges it. A file is imported when tensors of its device first come.
"""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqloom.core import counting
from seqloom.core.errors import ConfigError, MissingExtra

_FORCED: list[str | None] = [None]  # a plain global: dynamo traces through it, a ContextVar breaks the graph
_KERNELS: dict[str, "Kernel"] = {}
EXTRAS = {"triton": "gpu"}


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run every kernel by one backend ("reference", "numba_cpu", "triton_cuda"), refusals becoming errors.

    A kernel that has no such file runs by its reference; a name that no kernel has is an error.
    """
    known = {"reference", *(stem for kernel in _KERNELS.values() for stem in kernel.files)}
    known |= {file.stem for file in Path(__file__).parent.glob("[!_]*/[!_]*_*.py")}
    if name is not None and name not in known:
        raise ConfigError(f"no kernel has a backend called {name!r}; there are {', '.join(sorted(known))}")
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
    judge: Callable[..., str | None]
    op: Any

    def refuses(self, inputs: tuple[Any, ...], *, forced: bool = False) -> str | None:
        """Why this backend cannot run these inputs; None where it can."""
        interpreted = forced and self.package == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
        if _device(inputs) != self.device and not interpreted:
            return f"the tensors are on {_device(inputs)}, not on {self.device}"
        return self.judge(*inputs)


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
        self._saved: tuple[tuple[str, ...] | None, tuple[int, ...] | None] = (None, None)
        self._cost: Callable[..., Cost] | None = None
        self._cases: Callable[..., Iterator[tuple[Any, ...]]] | None = None
        self._found: dict[str, Backend | None] = {}
        self.absent: dict[str, str] = {}
        home = Path(getattr(sys.modules[self.__module__], "__file__", None) or "-")
        inside = sorted(home.parent.glob("[!_]*_*.py")) if home.stem == "__init__" else []
        self.files = tuple(file.stem for file in inside)
        self._key = f"{self.__module__}.{self.name}"
        _KERNELS[self._key] = self

    def shapes(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: empty outputs of the right shapes, strides and dtypes."""
        self._shapes = rule
        return rule

    def vjp(
        self,
        rule: Callable[..., Any] | None = None,
        *,
        inputs: tuple[str, ...] | None = None,
        outputs: tuple[int, ...] | None = None,
    ) -> Callable[..., Any]:
        """Decorator: ``backward(grads, inputs, outputs) -> gradients``, one an input, None where there is none.

        Args:
            rule: the function, where the decorator stands without arguments.
            inputs: names of the tensors that the rule reads; the others come as None and are not kept for it.
            outputs: numbers of the outputs that the rule reads.
        """
        if rule is None:
            return lambda rule: self.vjp(rule, inputs=inputs, outputs=outputs)
        self._vjp, self._saved = rule, (inputs, outputs)
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
        if named or len(inputs) != len(self._defaults):
            inputs = self._bind(inputs, named)
        backend = self._choose(inputs)
        run = self.reference if backend is None else backend.op
        if self._cost is not None and counting.active():  # one figure, whoever runs the call
            with counting.report(f"seqloom::{self.name}", self.floor(*inputs).macs):
                return run(*inputs)
        return run(*inputs)

    def generate(self, rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
        """The cases that tests and benchmarks share."""
        if self._cases is None:
            raise ConfigError(f"the kernel {self.name} has no cases")
        for case in self._cases(rng, dtype):
            yield self._bind(case, {})

    def floor(self, *inputs: Any, **named: Any) -> Cost:
        """The least that a call with these inputs must do."""
        if self._cost is None:
            raise ConfigError(f"the kernel {self.name} has no cost formula")
        return self._cost(*self._bind(inputs, named))

    @property
    def backends(self) -> tuple[Backend, ...]:
        """Backends whose package is installed, in the order of their files' names."""
        _load(self._key, None)
        return tuple(backend for stem in self.files if (backend := self._found.get(stem)) is not None)

    def explain(self, *inputs: Any, **named: Any) -> list[Verdict]:
        """Who would run this call, and why the others would not."""
        inputs, backends = self._bind(inputs, named), self.backends
        chosen = self._choose(inputs)
        verdicts = [Verdict(name, False, why) for name, why in self.absent.items()]
        for backend in backends:
            reason = (_NO_BACKWARD if self._by_autograd(inputs) else None) or backend.refuses(inputs)
            runs = backend is chosen
            verdicts.append(Verdict(backend.name, runs, reason or ("runs" if runs else "another backend comes first")))
        return [*verdicts, Verdict("reference", chosen is None, "runs" if chosen is None else "a backend is faster")]

    def load(self, device: str | None) -> None:
        """Import the backends of a device (None = of all) whose package is installed."""
        for stem in self.files:
            package, where = stem.rsplit("_", 1)
            if stem in self._found or stem in self.absent or device not in (None, where):
                continue
            if importlib.util.find_spec(package) is None:
                self.absent[stem] = f"{package} is not installed"
                continue
            module = importlib.import_module(f"{self.__module__}.{stem}")
            only = {self.__module__.rpartition(".")[2]: getattr(module, "forward", None)}
            forward = getattr(module, "FORWARDS", only).get(self.name)
            op = None if forward is None else self._custom_op(stem, forward)
            self._found[stem] = None if op is None else Backend(stem, where, package, module.refuses, op)

    def _bind(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        named, rest = dict(named), []
        for name, default in self._defaults[len(inputs) :]:
            value = named.pop(name, default)
            if value is inspect.Parameter.empty:
                raise TypeError(f"{self.name} needs the argument {name}")
            rest.append(value)
        if named or len(inputs) > len(self._defaults):
            takes = ", ".join(name for name, _ in self._defaults)
            raise TypeError(f"{self.name} takes ({takes}), not {len(inputs)} values and the names {sorted(named)}")
        return (*inputs, *rest)

    def _choose(self, inputs: tuple[Any, ...]) -> Backend | None:
        forced = _FORCED[0]
        if forced == "reference" or not self.files or self._by_autograd(inputs):
            return None
        if forced is not None:
            return self._forced(forced, inputs)
        _load(self._key, _device(inputs))
        for stem in self.files:
            backend = self._found.get(stem)
            if backend is not None and backend.refuses(inputs) is None:
                return backend
        return None

    def _forced(self, name: str, inputs: tuple[Any, ...]) -> Backend | None:
        _load(self._key, None)
        if name in self.absent:
            package = name.rsplit("_", 1)[0]
            raise MissingExtra(package, EXTRAS.get(package, package))
        backend = self._found.get(name)
        reason = None if backend is None else backend.refuses(inputs, forced=True)
        if reason is not None:
            raise ConfigError(f"{self.name}: {name} cannot run this call: {reason}")
        return backend

    def _by_autograd(self, inputs: tuple[Any, ...]) -> bool:
        """Without a backward of its own, a kernel that must be differentiated is its reference."""
        if self._vjp is not None or not torch.is_grad_enabled():
            return False
        return any(isinstance(value, Tensor) and value.requires_grad for value in inputs)

    def _custom_op(self, backend: str, forward: Callable[..., Any]) -> Any:
        if self._shapes is None:
            raise ConfigError(f"the kernel {self.name} needs a shapes rule before it can have backends")
        schema = torch.library.infer_schema(self.reference, mutates_args=())
        op = torch.library.custom_op(f"seqloom::{self.name}_{backend}", forward, mutates_args=(), schema=schema)
        op.register_fake(self._shapes)
        if self._vjp is not None:
            names, outputs = self._saved
            every = tuple(name for name, _ in self._defaults)
            read = tuple(every.index(name) for name in (every if names is None else names))
            op.register_autograd(_backward_of(self._vjp), setup_context=_keeper(read, outputs))
        return op


_NO_BACKWARD = "it has no backward: the reference is differentiated"


def kernel(reference: Callable[..., Any]) -> Kernel:
    """Make a public function a kernel; its body is its meaning."""
    return Kernel(reference)


def _device(inputs: tuple[Any, ...]) -> str:
    for value in inputs:
        if isinstance(value, Tensor):
            return value.device.type
    raise TypeError("a kernel needs a tensor")


@torch.compiler.assume_constant_result
def _load(key: str, device: str | None) -> bool:
    """Import backends at their first use; to dynamo a constant, as an import cannot be traced."""
    _KERNELS[key].load(device)
    return True


def _keeper(read: tuple[int, ...], outputs: tuple[int, ...] | None) -> Callable[..., None]:
    """Keep for the backward what its rule reads: tensors by autograd, the rest as constants."""

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        made = output if isinstance(output, tuple) else (output,)
        values = (*inputs, *made)
        last = range(len(made)) if outputs is None else outputs
        kept = {*read, *(len(inputs) + at for at in last)}
        ctx.constants = tuple(None if isinstance(value, Tensor) else value for value in values)
        ctx.places = tuple(at for at, value in enumerate(values) if at in kept and isinstance(value, Tensor))
        ctx.outputs = len(made)
        ctx.save_for_backward(*(values[at] for at in ctx.places))

    return keep


def _backward_of(vjp: Callable[..., Any]) -> Callable[..., Any]:
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values = list(ctx.constants)
        for at, tensor in zip(ctx.places, ctx.saved_tensors, strict=True):
            values[at] = tensor
        split = len(values) - ctx.outputs
        return tuple(vjp(grads, tuple(values[:split]), tuple(values[split:])))

    return backward
