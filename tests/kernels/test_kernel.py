"""The Kernel object: who runs, who refuses and why, binding, absent packages, compiling, memory kept for backward."""

import importlib.util
import subprocess
import sys

import pytest
import torch

from seqloom.core.errors import ConfigError, MissingExtra
from seqloom.kernels._kernel import kernel, use_backend
from seqloom.kernels.linear_scan import linear_scan, linear_scan_backward


def inputs(T: int = 5) -> tuple[torch.Tensor, ...]:
    return torch.rand(2, T, 3), torch.rand(2, T, 3), torch.rand(2, 3)


@kernel
def doubled(x: torch.Tensor, times: int = 2) -> torch.Tensor:
    """A kernel outside any folder: no backends."""
    return x * times


def test_a_forced_backend_that_refuses_is_an_error() -> None:
    with use_backend("numba_cpu"), pytest.raises(ConfigError, match=r"linear_scan: numba_cpu .* fewer than two steps"):
        linear_scan(*inputs(1))


def test_an_unknown_backend_is_an_error_and_none_is_no_choice() -> None:
    with pytest.raises(ConfigError, match="numba_gpu"), use_backend("numba_gpu"):
        pass
    with use_backend(None):
        assert linear_scan.explain(*inputs())[0].runs


def test_forcing_ends_with_its_block_even_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="inside"), use_backend("reference"):
        raise RuntimeError("inside")
    assert [verdict.backend for verdict in linear_scan.explain(*inputs()) if verdict.runs] == ["numba_cpu"]


def test_a_kernel_without_that_backend_runs_by_its_reference() -> None:
    with use_backend("numba_cpu"):
        assert torch.equal(doubled(torch.ones(2)), torch.full((2,), 2.0))


def test_explain_says_who_and_why_not() -> None:
    verdicts = {verdict.backend: verdict for verdict in linear_scan.explain(*inputs(1))}
    assert verdicts["reference"].runs
    assert "fewer than two steps" in verdicts["numba_cpu"].reason
    assert "not on cuda" in verdicts["triton_cuda"].reason
    assert sum(verdict.runs for verdict in linear_scan.explain(*inputs())) == 1


def test_what_has_no_backward_is_differentiated_through_its_reference() -> None:
    dy, dlast, y = torch.rand(2, 5, 3, requires_grad=True), torch.rand(2, 3), torch.rand(2, 5, 3)
    verdicts = {v.backend: v for v in linear_scan_backward.explain(dy, dlast, torch.rand(2, 5, 3), y, dlast)}
    assert verdicts["reference"].runs
    assert "no backward" in verdicts["numba_cpu"].reason
    with torch.no_grad():
        assert linear_scan_backward.explain(dy, dlast, torch.rand(2, 5, 3), y, dlast)[0].runs


def test_an_absent_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: backend for name, backend in linear_scan._found.items() if name != "triton_cuda"}
    monkeypatch.setattr(linear_scan, "_found", found)
    monkeypatch.setattr(linear_scan, "absent", {})
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else find(name))
    linear_scan.load("cuda")
    assert linear_scan.absent == {"triton_cuda": "triton is not installed"}
    with use_backend("triton_cuda"), pytest.raises(MissingExtra, match=r"seqloom\[gpu\]"):
        linear_scan(*inputs())


def test_keywords_bind_like_a_functions() -> None:
    a_BTD, x_BTD, h_BD = inputs()
    want = linear_scan(a_BTD, x_BTD, h_BD, True)
    got = linear_scan(a_BTD, h_BD=h_BD, reverse=True, x_BTD=x_BTD)
    assert torch.equal(got[0], want[0])
    with pytest.raises(TypeError, match="needs the argument h_BD"):
        linear_scan(a_BTD, x_BTD)
    with pytest.raises(TypeError, match="backwards"):
        linear_scan(a_BTD, x_BTD, h_BD, backwards=True)
    with pytest.raises(TypeError, match="5 values"):
        linear_scan(a_BTD, x_BTD, h_BD, True, True)


def test_a_kernel_without_rules_says_which() -> None:
    with pytest.raises(ConfigError, match="doubled has no cases"):
        next(doubled.generate(torch.Generator(), torch.float32))
    with pytest.raises(ConfigError, match="doubled has no cost"):
        doubled.floor(torch.ones(1))


def test_the_first_call_may_be_a_compiled_one() -> None:
    """Backends are imported at first use; under torch.compile that import must not break the graph."""
    code = (
        "import torch; from seqloom.kernels.linear_scan import linear_scan\n"
        "assert not linear_scan._found\n"
        "f = torch.compile(lambda *v: linear_scan(*v)[0].sum(), backend='aot_eager', fullgraph=True)\n"
        "v = [torch.rand(2, 5, 3, requires_grad=True) for _ in range(2)]\n"
        "f(*v, torch.rand(2, 3)).backward(); assert linear_scan._found['numba_cpu'] and v[0].grad is not None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_a_kernel_imports_no_backend() -> None:
    code = "import sys, seqloom.kernels.linear_scan; assert 'numba' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_what_the_backward_reads_is_kept() -> None:
    kept: list[int] = []
    a_BTD, x_BTD, h_BD = (value.requires_grad_() for value in inputs())
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        y_BTD, _ = linear_scan(a_BTD, x_BTD, h_BD)
    assert sorted(kept) == sorted(value.data_ptr() for value in (a_BTD, h_BD, y_BTD))
