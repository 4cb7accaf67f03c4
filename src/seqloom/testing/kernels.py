"""The contract of a kernel: every backend means what the reference says, in values, gradients and shapes.

check_kernel(linear_scan)                  every backend that is installed, and the reference itself
check_kernel(linear_scan, "numba_cpu")     one of them
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from seqloom.core.discovery import module, names
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Backend, Kernel, use_backend

EXACT = (1e-9, 1e-11)  # float64: relative to the entry, and to the largest entry
SINGLE = 256 * torch.finfo(torch.float32).eps  # sums over the time axis lose a few bits


def kernels() -> tuple[Kernel, ...]:
    """Every kernel of every discovered folder, adjoints that are kernels of their own included."""
    found: dict[str, Kernel] = {}
    for name in names("kernels"):
        home = module("kernels", name)
        here = [
            value for value in vars(home).values() if isinstance(value, Kernel) and value.__module__ == home.__name__
        ]
        found |= {kernel.name: kernel for kernel in here}
    return tuple(found.values())


def check_kernel(op: Kernel, backend: str | None = None) -> None:
    """Raise where a kernel breaks its contract.

    Args:
        op: the kernel.
        backend: one backend or "reference"; None = all of them, Triton's on the CPU only in its interpreter.

    Raises:
        AssertionError: the message names the check, the backend and the case.
        ConfigError: the kernel has no such backend.
    """
    if backend is None:
        check_reference(op)
        for one in op.backends:
            if device_of(one) is not None:
                check_backend(op, one)
    elif backend == "reference":
        check_reference(op)
    else:
        known = {one.name: one for one in op.backends}
        if backend not in known:
            raise ConfigError(f"{op.name} has no backend {backend!r} here; there are {', '.join(known) or 'none'}")
        check_backend(op, known[backend])


def device_of(backend: Backend) -> str | None:
    """Where a backend can run on this machine; None where it cannot."""
    if backend.device == "cpu" or (backend.package == "triton" and os.environ.get("TRITON_INTERPRET") == "1"):
        return "cpu"
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return backend.device if here is not None and here.type == backend.device else None


def check_reference(op: Kernel) -> None:
    """The meaning itself: shapes as declared, a right derivative, a floor, nothing changed or aliased."""
    with use_backend("reference"):
        cases = _cases(op, torch.float64)
        assert len(cases) > 1, f"{op.name}: the contract needs at least two cases"
        assert any(0 in value.shape for case in cases for value in _tensors(case)), f"{op.name}: no case is empty"
        for at, case in enumerate(cases):
            where = f"{op.name}, reference, case {at}"
            _check_call(op, case, where)
            cost = op.floor(*case)
            assert min(cost.macs, cost.bytes) >= 0, f"{where}: the cost formula gives {cost}"
            assert cost.bytes or not case[0].numel(), f"{where}: the cost formula reads and writes nothing"
        _check_derivatives(op, cases[1], f"{op.name}, reference")


def check_backend(op: Kernel, backend: Backend) -> None:
    """A faster form: equal to the reference on every case that it does not refuse, and a sound torch op."""
    with use_backend(backend.name):
        every, where = _cases(op, torch.float64, device_of(backend) or "cpu"), f"{op.name}, {backend.name}"
        cases = [case for case in every if backend.refuses(case, forced=True) is None]
        assert 2 * len(cases) >= len(every), f"{where}: it runs {len(cases)} of {len(every)} cases"
        small = next(case for case in every[1:] if backend.refuses(case, forced=True) is None)
        with poisoned():
            for at, case in enumerate(cases):
                _check_call(op, case, f"{where}, case {at}")
                _check_equal(op, case, case, EXACT, f"{where}, case {at}")
            _check_equal(op, small, _strided(small), EXACT, f"{where}, inputs that are not contiguous")
            single = tuple(_narrow(value) for value in cases[-1])
            _check_equal(op, cases[-1], single, (SINGLE, SINGLE), f"{where}, float32")
        _check_op(op, backend, small)
        _check_derivatives(op, small, where)
        check_compiles(op, small, where)


def check_compiles(op: Kernel, case: tuple[Any, ...], where: str) -> None:
    """torch.compile traces through the kernel, forward and backward, in one graph."""
    torch._dynamo.reset()
    compiled = torch.compile(lambda *values: op(*values), backend="aot_eager", fullgraph=True)
    want, got = _outcome(op, case), _outcome(compiled, case)
    _close(got, want, EXACT, f"{where}, compiled")


@contextmanager
def poisoned() -> Iterator[None]:
    """Fresh torch memory is NaN meanwhile, so that what was never written shows."""
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


def _check_call(op: Kernel, case: tuple[Any, ...], where: str) -> None:
    """Shapes rule = real outputs, no input changed, no memory shared, no gradient where none is asked."""
    kept = [value.clone() for value in _tensors(case)]
    outputs = _pack(op(*case))
    for value, copy in zip(_tensors(case), kept, strict=True):
        assert torch.equal(value, copy), f"{where}: it changed an input"
    owned = {value.untyped_storage().data_ptr() for value in _tensors(case) if value.numel()}
    for output in outputs:
        shared = output.numel() > 0 and output.untyped_storage().data_ptr() in owned
        assert not shared, f"{where}: an output shares memory with an input"
        assert not output.requires_grad, f"{where}: an output asks for a gradient that no input asked for"
    if op._shapes is not None:
        for output, empty in zip(outputs, _pack(op._shapes(*case)), strict=True):
            real, rule = (_form(value) for value in (output, empty))
            assert real == rule, f"{where}: an output is {real}, the shapes rule says {rule}"


def _check_equal(op: Kernel, case: Any, given: Any, tolerance: tuple[float, float], where: str) -> None:
    """Outputs and every gradient of ``op(*given)`` are those of the reference in float64 on ``case``."""
    with use_backend("reference"):
        want = _outcome(op.reference, case)
    _close(_outcome(op, given), want, tolerance, where)
    with torch.no_grad():  # where a backend has no gradients, the reference answers whoever asks for them
        plain = list(_pack(op(*given)))
    _close(plain, want[: len(plain)], tolerance, f"{where}, without gradients")


def _check_op(op: Kernel, backend: Backend, case: tuple[Any, ...]) -> None:
    wanted = op._vjp is not None
    inputs = tuple(_leaf(value, wanted) for value in case)
    torch.library.opcheck(backend.op, inputs)


def _check_derivatives(op: Kernel, case: tuple[Any, ...], where: str) -> None:
    inputs = tuple(_leaf(value, True) for value in case)
    if not any(value.requires_grad for value in _tensors(inputs)) or not any(
        value.is_floating_point() or value.is_complex() for value in _pack(op(*case))
    ):
        return  # whole numbers in, or whole numbers out
    try:
        torch.autograd.gradcheck(op, inputs, fast_mode=True, atol=1e-6)
        torch.autograd.gradgradcheck(op, inputs, fast_mode=True, atol=1e-6)
    except GradcheckError as error:
        raise AssertionError(f"{where}: a derivative is wrong: {error}") from error


def _outcome(op: Any, case: tuple[Any, ...]) -> list[Tensor]:
    """Outputs, then the gradients of a fixed weighting of them."""
    inputs = tuple(_leaf(value, True) for value in case)
    outputs = _pack(op(*inputs))
    rng = torch.Generator().manual_seed(1)
    wide = [torch.randn(output.shape, generator=rng, dtype=_wide(output.dtype)) for output in outputs]
    chosen = [(out, w.to(out)) for out, w in zip(outputs, wide, strict=True) if out.requires_grad]
    leaves = [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
    return [*(output.detach() for output in outputs), *_grads(chosen, leaves)]


def _grads(chosen: list[tuple[Tensor, Tensor]], leaves: list[Tensor]) -> list[Tensor]:
    if not chosen:
        return []
    outputs, weights = (list(side) for side in zip(*chosen, strict=True))
    found = torch.autograd.grad(outputs, leaves, weights, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)]


def _close(got: list[Tensor], want: list[Tensor], tolerance: tuple[float, float], where: str) -> None:
    relative, absolute = tolerance
    for at, (one, other) in enumerate(zip(got, want, strict=True)):
        largest = max(1.0, other.abs().max().item()) if other.numel() else 1.0
        limit = {"rtol": relative, "atol": absolute * largest, "check_dtype": False}
        torch.testing.assert_close(one, other, **limit, msg=lambda text, at=at: f"{where}, result {at}: {text}")


def _cases(op: Kernel, dtype: torch.dtype, device: str = "cpu") -> list[tuple[Any, ...]]:
    cases = op.generate(torch.Generator().manual_seed(0), dtype)
    return [tuple(v.to(device) if isinstance(v, Tensor) else v for v in case) for case in cases]


def _tensors(values: tuple[Any, ...]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


def _pack(output: Any) -> tuple[Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


def _form(value: Tensor) -> tuple[Any, ...]:
    steps = tuple(step for step, size in zip(value.stride(), value.shape, strict=True) if size > 1)
    return tuple(value.shape), value.dtype, steps if value.numel() else None


def _leaf(value: Any, wanted: bool) -> Any:
    """A fresh leaf with the same strides; what is no real or complex number passes."""
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        return value
    return value.detach().requires_grad_(wanted)


def _strided(case: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same values in memory with other strides."""
    return tuple(v.mT.contiguous().mT if isinstance(v, Tensor) and v.ndim > 1 else v for v in case)


def _narrow(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to({torch.float64: torch.float32, torch.complex128: torch.complex64}.get(value.dtype, value.dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64
