"""selective_scan against the torch loop, a plain C loop and autograd; a Mamba LM's step beside attention's.

The C loop computes the same numbers at -O3 -march=native with the library's expf, one channel after the other; it lives
here alone. The floor of the arithmetic is one exponential a state and step; of the traffic, inputs and outputs once.
"""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from seqloom.kernels.selective_scan import selective_scan
from seqloom.testing.benchmark import Case
from seqloom.testing.kernels import check_kernel

SOURCE = r"""
#include <math.h>
void scan(const float *x, const float *dt, const float *a, const float *b, const float *c, const float *h0, float *y,
          float *last, long B, long T, long E, long N) {
  for (long row = 0; row < B; row++)
    for (long e = 0; e < E; e++) {
      float h[64];
      for (long n = 0; n < N; n++) h[n] = h0[(row * E + e) * N + n];
      for (long t = 0; t < T; t++) {
        const long at = (row * T + t) * E + e, maps = (row * T + t) * N;
        const float step = dt[at], drive = step * x[at];
        float sum = 0;
        for (long n = 0; n < N; n++) {
          h[n] = expf(step * a[e * N + n]) * h[n] + drive * b[maps + n];
          sum += c[maps + n] * h[n];
        }
        y[at] = sum;
      }
      for (long n = 0; n < N; n++) last[(row * E + e) * N + n] = h[n];
    }
}
"""
FLAGS = ("-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")


@cache
def check() -> None:
    check_kernel(selective_scan, "numba_cpu")


def cases() -> Iterator[Case]:
    yield forward(2, 2048, 256, 16)
    yield training(2, 2048, 256, 16)


def draw(B: int, T: int, E: int, N: int) -> list[Tensor]:
    x, dt, a = torch.randn(B, T, E), torch.rand(B, T, E), -torch.rand(E, N)
    return [x, dt, a, torch.randn(B, T, N), torch.randn(B, T, N), torch.randn(B, E, N)]


def forward(B: int, T: int, E: int, N: int) -> Case:
    given, exponents = draw(B, T, E, N), torch.rand(B, T, E, N)
    arms = {
        "selective_scan": lambda: selective_scan(*given),
        "torch loop": lambda: selective_scan.reference(*given),
        "exponentials alone, torch": lambda: torch.exp(exponents),
    }
    compiled = c_loop()
    if compiled is not None:
        arms["plain C loop"] = lambda: compiled(*given)

    def compare() -> None:
        check()
        if compiled is not None:
            torch.testing.assert_close(compiled(*given), selective_scan(*given)[0], rtol=1e-3, atol=1e-3)

    floor = "torch loop" if compiled is None else "plain C loop"
    return Case(f"forward ({B}, {T}, {E}), N = {N}", arms, floor, compare, goal=2.0, rounds=5)


def training(B: int, T: int, E: int, N: int) -> Case:
    given = [value.requires_grad_() for value in draw(B, T, E, N)]
    dy = torch.randn(B, T, E)

    def run(scan: Callable[..., tuple[Tensor, ...]]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(scan(*given)[0], given, dy)

    def compare() -> None:
        check()
        ours, naive = saved(lambda: selective_scan(*given)[0]), saved(lambda: selective_scan.reference(*given)[0])
        print(f"   bytes kept for the backward pass: {ours:,} and {naive:,}, a {naive / ours:.0f}th part")
        assert 8 * ours <= naive, (ours, naive)

    arms = {"selective_scan": run(selective_scan), "autograd through the loop": run(selective_scan.reference)}
    return Case(
        f"forward and backward ({B}, {T}, {E}), N = {N}",
        arms,
        "autograd through the loop",
        compare,
        goal=1 / 15,
        rounds=3,
    )


def saved(call: Callable[[], Tensor]) -> int:
    """Bytes of distinct memory that autograd keeps."""
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        output = call()  # kept while it is counted: what is freed would be counted under one address
    del output
    return sum(kept.values())


@cache
def c_loop() -> Callable[..., Tensor] | None:
    """The loop compiled with the machine's C compiler; None where it has none."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp())
    source, library = folder / "scan.c", folder / "scan.so"
    source.write_text(SOURCE, encoding="utf-8")
    subprocess.run([compiler, *FLAGS, str(source), "-o", str(library), "-lm"], check=True)
    loop = ctypes.CDLL(str(library)).scan

    def call(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, h: Tensor) -> Tensor:
        (B, T, E), N = x.shape, a.shape[1]
        y, last = torch.empty_like(x), torch.empty_like(h)
        pointers = [ctypes.c_void_p(value.data_ptr()) for value in (x, dt, a, b, c, h, y, last)]
        loop(*pointers, *(ctypes.c_long(size) for size in (B, T, E, N)))
        return y

    return call
