"""What a computation costs: multiply-accumulates, parameters, and bytes kept for the backward pass.

    FLOP = 2 MAC    complex product = 4 MAC    complex FFT of N points = 5 N log2 N FLOP, real FFT = half of it

Products, convolutions, attention, recurrent layers, transforms and factorisations are MACs. Everything else is
``elementwise``: the elements of the largest tensor that the op touches; moves and views are nothing. A GEMM-like op
without a formula is an error, never a silent zero. Attention counts the whole rectangle, convolution its padding:
what dense kernels do. Counted in eager mode, and in whatever grad mode is on.

Shapes: none.
Source: as the formulas, see ``_mac_formulas``.
"""

import dataclasses
import weakref
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from seqloom.core._mac_formulas import Formula, formula_of, is_move, is_unknown, numel
from seqloom.core.errors import ConfigError

BACKWARD = "(backward)"

_added: dict[str, Formula] = {}
_open: list["Counter"] = []


@dataclass(frozen=True, slots=True)
class Macs:
    """Multiply-accumulates of one computation; the parts of each table sum to ``total``."""

    total: int
    by_module: dict[str, int]
    """By path of the innermost module, "" for the root; ops of the backward pass are under "(backward)"."""
    by_op: dict[str, int]
    """By operator, such as "aten::bmm"."""
    elementwise: int
    """Elements handled by all other arithmetic: pointwise ops, reductions, softmax, norms, scans, sorts."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Calls of GEMM-like or foreign ops for which there is no formula; their MACs are missing from the total."""

    @property
    def flops(self) -> int:
        """Two for each multiply-accumulate."""
        return 2 * self.total

    def under(self, path: str) -> int:
        """Sum the module at ``path`` and all that it holds."""
        return sum(n for at, n in self.by_module.items() if path in ("", at) or at.startswith(f"{path}."))


class Counter:
    """Counts everything that runs inside ``with Counter() as counter:``; read ``counter.macs``."""

    def __init__(self, module: nn.Module | None = None) -> None:
        """Paths start at ``module``; a module outside it is known by its class name."""
        self._paths = {} if module is None else {m: path for path, m in module.named_modules()}
        self._stack: list[str] = []
        self._by_module, self._by_op, self._unknown = Tally(), Tally(), Tally()
        self._elementwise = self._muted = 0

    def __enter__(self) -> "Counter":
        """Start to watch modules and operators."""
        self._hooks = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ]
        self._mode = _Mode(self)
        self._mode.__enter__()
        _open.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        """Stop; the counts stay."""
        _open.remove(self)
        self._mode.__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    @property
    def macs(self) -> Macs:
        """The counts so far."""
        total = sum(self._by_op.values())
        return Macs(total, dict(self._by_module), dict(self._by_op), self._elementwise, dict(self._unknown))

    def _enter_module(self, module: nn.Module, _inputs: object) -> None:
        if module not in self._paths:
            root = type(module).__name__
            self._paths |= {m: f"{root}.{path}".rstrip(".") for path, m in module.named_modules()}
        self._stack.append(self._paths[module])

    def _leave_module(self, _module: nn.Module, _inputs: object, _outputs: object) -> None:
        self._stack.pop()

    def _add(self, name: str, macs: int) -> None:
        in_backward = torch._C._current_graph_task_id() != -1
        path = self._stack[-1] if self._stack else BACKWARD if in_backward else ""
        self._by_op[name] += macs
        self._by_module[path] += macs

    def _see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        name = func._schema.name
        if self._muted:
            return
        if formula := formula_of(name, _added):
            given = (*args, *(kwargs.get(a.name, a.default_value) for a in func._schema.arguments[len(args) :]))
            self._add(name, formula(given, out))
        elif func.is_view or is_move(name):
            return
        elif is_unknown(name):
            self._unknown[name] += 1
        else:
            self._elementwise += max(map(numel, (*args, *kwargs.values(), out)))


class _Mode(TorchDispatchMode):
    """Hands every operator below autograd to the counter, composite ones in their parts."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if formula_of(func._schema.name, _added) is None and not func.is_view:
            with self:  # inference mode does not take composite ops apart, so that matmul would arrive whole
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self.counter._see(func, args, kwargs, out)
        return out


def count_macs(fn: Callable[..., Any], *inputs: Any, strict: bool = True) -> Macs:
    """Run ``fn(*inputs)`` once and count it; with ``strict`` an op of unknown cost is an error.

    >>> count_macs(nn.Linear(8, 3), torch.zeros(5, 8)).total
    120
    """
    with Counter(fn if isinstance(fn, nn.Module) else None) as counter:
        fn(*inputs)
    macs = counter.macs
    if strict and macs.unknown:
        raise ConfigError(
            f"no MAC formula for {', '.join(sorted(macs.unknown))}: register one with counting.addend(name), "
            "wrap the call in counting.report(name, macs), or pass strict=False to list them in Macs.unknown"
        )
    return macs


def addend(name: str) -> Callable[[Formula], Formula]:
    """Register ``formula(args, out) -> MACs`` for a custom op, for instance "seqloom::linear_scan".

    ``args`` are all arguments of the op in schema order. The backends of a kernel (``linear_scan_numba_cpu``) use the
    formula of the kernel unless they register their own.
    """

    def register(formula: Formula) -> Formula:
        if name in _added:
            raise ConfigError(f"{name} has a MAC formula already: register each op once")
        _added[name] = formula
        return formula

    return register


def active() -> bool:
    """Whether anything counts at the moment."""
    return bool(_open)


@contextmanager
def report(name: str, macs: int | Callable[[], int]) -> Iterator[None]:
    """Count ``macs`` for the block in place of its own operators; a callable is asked only while something counts."""
    counters = list(_open)
    for counter in counters:
        if not counter._muted:
            counter._add(name, macs() if callable(macs) else macs)
        counter._muted += 1
    try:
        yield
    finally:
        for counter in counters:
            counter._muted -= 1


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameter elements of a module, shared ones counted once."""

    held: int
    used: int | None
    """Those that receive a gradient from the given loss; None without a loss."""


def parameters(module: nn.Module, loss: Tensor | Callable[[], Tensor] | None = None) -> Parameters:
    """Count what ``module`` holds and what ``loss`` (a tensor, or a function that computes it) sends a gradient to.

    ``.grad`` is left alone. A gradient of zeros is one; only a parameter outside the graph, or frozen, is unused.
    """
    held = list(module.parameters())
    if loss is None:
        return Parameters(_elements(held), None)
    value = loss() if callable(loss) else loss
    wanted = [p for p in held if p.requires_grad]
    grads = torch.autograd.grad(value.sum(), wanted, allow_unused=True) if wanted and value.requires_grad else ()
    used = [p for p, g in zip(wanted, grads, strict=False) if g is not None]
    return Parameters(_elements(held), _elements(used))


def saved_bytes(fn: Callable[..., Any], *inputs: Any, count_inputs: bool = True) -> int:
    """Return the bytes of distinct storages that the graph of ``fn(*inputs)`` keeps alive for its backward pass.

    Parameters, and views of them, are left out; with ``count_inputs=False`` the inputs too. A whole storage counts
    even where only a view is kept, as it does in memory. Tensors that a custom Function hides in ``ctx`` attributes
    are not seen.
    """
    left_out = {_storage(p) for p in fn.parameters()} if isinstance(fn, nn.Module) else set()
    if not count_inputs:
        left_out |= {_storage(t) for t in _tensors(inputs)}
    kept: list[weakref.ref[_Kept]] = []

    def pack(tensor: Tensor) -> "_Kept":
        if isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter):
            left_out.add(_storage(tensor))
        holder = _Kept(tensor.detach())  # an output with its history would hold the node that holds it
        kept.append(weakref.ref(holder))
        return holder

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor):
        out = fn(*inputs)
    alive = [holder.tensor for ref in kept if (holder := ref())]  # branches that nothing uses are gone by now
    sizes = {_storage(t): t.untyped_storage().nbytes() for t in alive}
    del out
    return sum(size for at, size in sizes.items() if at not in left_out)


class _Kept:
    """One saved tensor; lives exactly as long as the graph node that saved it."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # unlike data_ptr, distinct for empty and meta tensors too


def _tensors(tree: Any) -> Iterable[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        yield from _tensors([getattr(tree, f.name) for f in dataclasses.fields(tree)])
    elif isinstance(tree, Mapping):
        yield from _tensors(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for branch in tree:
            yield from _tensors(branch)


def _elements(tensors: Iterable[Tensor]) -> int:
    """Elements of the union: views of one storage that overlap count once, disjoint ones each."""
    intervals: dict[int, set[tuple[int, int]]] = {}
    for t in tensors:
        if t.numel():
            last = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
            start = int(t.storage_offset())
            intervals.setdefault(_storage(t), set()).add((start, start + last + 1))
    total = 0
    for spans in intervals.values():
        reached = 0
        for start, end in sorted(spans):
            total += max(0, end - max(start, reached))
            reached = max(reached, end)
    return total
