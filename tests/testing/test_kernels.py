"""check_kernel must fail on what is wrong: a sign, a gradient, an alias, a changed input, a shape."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel
from seqloom.kernels.linear_scan import linear_scan
from seqloom.kernels.linear_scan import numba_cpu as backend_file
from seqloom.testing.kernels import check_kernel, check_reference


def scaled(body: Any, shapes: Any = torch.empty_like) -> Any:
    body.__name__ = "scaled"
    op = kernel(body)
    op.shapes(shapes)
    op.cost(lambda x: Cost(x.numel(), 2 * x.nbytes))
    op.cases(cases)
    return op


def cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    for size in (1, 3, 0):
        yield (torch.rand(size, generator=rng, dtype=dtype),)


def test_a_right_one_passes() -> None:
    def body(x: Tensor) -> Tensor:
        return 2 * x

    check_reference(scaled(body))


def test_an_alias_is_found() -> None:
    def body(x: Tensor) -> Tensor:
        return x.view(x.shape)

    with pytest.raises(AssertionError, match="shares memory"):
        check_reference(scaled(body))


def test_a_changed_input_is_found() -> None:
    def body(x: Tensor) -> Tensor:
        return x.data.add_(1) * 1

    with pytest.raises(AssertionError, match="changed an input"):
        check_reference(scaled(body))


def test_a_wrong_derivative_is_found() -> None:
    def body(x: Tensor) -> Tensor:
        return x * x.detach()

    with pytest.raises(AssertionError, match="derivative is wrong"):
        check_reference(scaled(body))


def test_a_wrong_shapes_rule_is_found() -> None:
    def body(x: Tensor) -> Tensor:
        return 2 * x

    with pytest.raises(AssertionError, match="shapes rule"):
        check_reference(scaled(body, lambda x: x.new_empty(7)))


@pytest.mark.parametrize("wrong", ["values", "last"])
def test_a_wrong_backend_is_found(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    right = backend_file._scan

    def broken(a: Any, x: Any, h: Any, y: Any, last: Any, *rest: Any) -> None:
        right(a, x, h, y, last, *rest)
        (y if wrong == "values" else last)[0] *= 1.0001

    monkeypatch.setattr(backend_file, "_scan", broken)
    with pytest.raises(AssertionError, match="numba_cpu, case"):
        check_kernel(linear_scan, "numba_cpu")


def test_memory_that_is_never_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_file, "_scan", lambda *arrays: None)
    with pytest.raises(AssertionError, match="numba_cpu, case"):
        check_kernel(linear_scan, "numba_cpu")


def test_a_backend_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="c_cpu"):
        check_kernel(linear_scan, "c_cpu")
