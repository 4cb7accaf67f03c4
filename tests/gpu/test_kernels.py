"""Every kernel on the device, compiled: its cases against the reference in float64 on the same rounded inputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from seqloom.core.discovery import module, names
from seqloom.kernels._kernel import Backend, Kernel, use_backend
from seqloom.testing.kernels import check_backend, poisoned

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning"),  # only asked for so that fresh memory is NaN
]

EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32, torch.bfloat16)}
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 256 * EPS[torch.float32],  # sums over the time axis lose a few bits
    torch.bfloat16: 2 * EPS[torch.bfloat16],  # what is kept for the backward and what it gives are rounded once each
}
"""Largest difference over the reference's largest entry."""
CANCELLED = 1e-6
"""A result below this share of the call's largest cancels in exact arithmetic: it is measured by the largest."""
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
LARGE = {
    "linear_scan": {"B": 4, "T": 4096, "D": 1024},
    "short_conv": {"B": 4, "T": 4096, "D": 1024},
    "selective_scan": {"B": 2, "T": 1024, "E": 512, "N": 16},
    "decay_attention": {"B": 4, "T": 1024, "K": 64, "V": 64},
    "normalised_decay_attention": {"B": 4, "T": 1024, "K": 64, "V": 64},
    "gated_loop": {"B": 16, "T": 256, "J": 64, "K": 64},
}
"""Sizes of real work by letter of the shape; a kernel that is not named takes ANY."""
ANY = {"B": 4, "T": 1024}
SMALL = {"B": 2, "T": 70}


@dataclass(frozen=True)
class Broken:
    """A kernel folder that cannot be imported: one failing test, and the others still run."""

    name: str
    why: str


def everything() -> list[Kernel | Broken]:
    found: dict[str, Kernel | Broken] = {}
    for name in names("kernels"):
        try:
            home = module("kernels", name)
            here = [v for v in vars(home).values() if isinstance(v, Kernel) and v.__module__ == home.__name__]
            found |= {kernel.name: kernel for kernel in here if kernel.backends is not None}
        except Exception as error:
            found[name] = Broken(name, f"{type(error).__name__}: {error}")
    return list(found.values())


def compiled_form(op: Kernel | Broken) -> Backend | None:
    return None if isinstance(op, Broken) else next((b for b in op.backends if b.package == "triton"), None)


EVERY = [pytest.param(op, id=op.name) for op in everything()]
FORWARD = [
    pytest.param(op, id=op.name) for op in everything() if compiled_form(op) and not op.name.endswith("_backward")
]
COMPILED = [pytest.param(op, id=op.name) for op in everything() if compiled_form(op) is not None]


@pytest.mark.parametrize("op", EVERY)
def test_every_kernel_answers_on_the_device_in_float64(op, device):
    """Whoever runs it there, a Triton form or the reference: no input is left behind on the host, T = 0 included."""
    assert isinstance(op, Kernel), op.why
    report(op, device, torch.float64, [(f"case {i}", case) for i, case in enumerate(cases(op))], every=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", COMPILED)
def test_triton_equals_the_reference(op, dtype, device):
    done = report(op, device, dtype, [(f"case {i}", case) for i, case in enumerate(cases(op))])
    assert done, f"{op.name} refuses every case in {dtype}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", FORWARD)
def test_triton_equals_the_reference_at_real_sizes(op, dtype, device, small):
    done = report(op, device, dtype, templates(op, small).items(), reference_on=device)
    assert done, f"{op.name} refuses every large case in {dtype}"


@pytest.mark.parametrize("op", COMPILED)
def test_other_strides_change_nothing(op, device):
    """Transposed memory, and rows of a wider tensor that holds NaN beside them."""
    for at, case in served(op, narrow_all(cases(op), torch.float32), device):
        want, cotangents = outcome(op, case, device)
        for form in (transposed, beside_nan):
            got = outcome(op, tuple(form(value) for value in case), device, cotangents)[0]
            compare(got, want, TOLERANCE[torch.float32], f"{op.name}, case {at}, {form.__name__}")


@pytest.mark.parametrize("op", COMPILED)
def test_nothing_unwritten_is_read_or_returned(op, device):
    """Fresh memory is NaN, the blocks that the allocator reuses too."""
    for at, case in served(op, narrow_all(cases(op), torch.float32), device):
        want, cotangents = outcome(op, case, device)
        spoil(device)
        with poisoned():
            got = outcome(op, case, device, cotangents)[0]
        compare(got, want, TOLERANCE[torch.float32], f"{op.name}, case {at}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", FORWARD)
def test_two_runs_give_the_same_bits(op, dtype, device, small):
    for at, case in served(op, narrow_all(templates(op, small).values(), dtype), device):
        first, cotangents = outcome(op, case, device)
        for _ in range(3):
            again = outcome(op, case, device, cotangents)[0]
            moved = [i for i, (a, b) in enumerate(zip(first, again, strict=True)) if not same_bits(a, b)]
            assert not moved, f"{op.name}, large case {at}: results {moved} differ between two runs: a race"


@pytest.mark.parametrize("op", COMPILED)
def test_the_contract_holds_on_the_device(op, device):
    """float64, opcheck, finite differences and the compiler's trace, as everywhere; a float64 refusal is honest."""
    backend = compiled_form(op)
    wide = [case for case in cases(op) if backend.refuses(to(case, device), forced=True) is None]
    if not wide:
        pytest.skip(f"{op.name}: {backend.name} serves no float64")
    check_backend(op, backend)


@pytest.mark.parametrize("name", ["linear_scan", "short_conv"])
def test_more_elements_than_32_bits_count(name, device, small):
    """The last row of 2^31 elements is what it is alone."""
    op = module("kernels", name).__dict__[name]
    B, T, D = (3, 8, 5) if small else (17, 2**17, 1024)
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else 2**40
    if free < 5 * 2 * B * T * D:
        pytest.skip(f"needs {5 * 2 * B * T * D / 1e9:.0f} GB of free memory")
    x_BTD = torch.empty(B, T, D, dtype=torch.bfloat16, device=device).uniform_(-1, 1)
    if name == "linear_scan":
        a_BTD = torch.full((1, 1, D), 0.9, dtype=torch.bfloat16, device=device)
        rest: Any = lambda rows: (a_BTD, x_BTD[rows], x_BTD[rows, 0])  # noqa: E731
    else:
        weight_DK = torch.randn(D, 4, device=device).bfloat16()
        rest = lambda rows: (x_BTD[rows], weight_DK, None, None, None, None, "silu", 0)  # noqa: E731
    with torch.no_grad(), chosen(device):
        last = op(*rest(slice(None)))[0][-1:].clone()
        assert torch.equal(last, op(*rest(slice(B - 1, B)))[0])


def cases(op: Kernel) -> list[tuple[Any, ...]]:
    return list(op.generate(torch.Generator().manual_seed(0), torch.float64))


def templates(op: Kernel, small: bool) -> dict[str, tuple[Any, ...]]:
    """The plainest and the richest of the kernel's own cases, drawn out to real sizes.

    Adjoints take what a forward call gave, which cannot be drawn out; they run with the forward's gradients.
    """
    if op.name.endswith("_backward"):
        return {}
    have = [case for case in cases(op) if all(v.numel() for v in tensors(case)) and not has_complex(case)]
    if not have:
        return {}
    plain, rich = (best(have, key=lambda case: (len(tensors(case)), largest(case))) for best in (min, max))
    sizes = SMALL if small else LARGE.get(op.name, ANY)
    rng = torch.Generator().manual_seed(2)
    return {f"large {at}": enlarge(op, case, sizes, rng) for at, case in enumerate((plain, rich))}


def enlarge(op: Kernel, case: tuple[Any, ...], sizes: dict[str, int], rng: torch.Generator) -> tuple[Any, ...]:
    """Repeat every tensor along the axes whose letters have a size, each entry times a number in 0.5..1.

    Signs, zeros and infinities stay what they are. Axes of length 1 that are longer elsewhere stay 1 (constants).
    """
    letters = [name.rpartition("_")[2] for name, _ in op._defaults]
    known = [(w, v) for w, v in zip(letters, case, strict=True) if isinstance(v, Tensor) and len(w) == v.ndim]
    most = {letter: max(v.shape[w.index(letter)] for w, v in known if letter in w) for w, _ in known for letter in w}
    T, drawn = sizes["T"], []
    for (name, _), word, value in zip(op._defaults, letters, case, strict=True):
        if not isinstance(value, Tensor) or len(word) != value.ndim:
            drawn.append(value)
            continue
        grown = [size if size == 1 < most[w] else sizes.get(w, size) for w, size in zip(word, value.shape, strict=True)]
        if name.startswith("lengths"):
            drawn.append(torch.randint(0, T + 1, grown, generator=rng))
        elif name.startswith("segments"):
            drawn.append((torch.rand(grown, generator=rng) < 0.01).long().cumsum(1))
        else:
            shares = [size / have for size, have in zip(grown, value.shape, strict=True)]
            for axis, size in enumerate(grown):
                value = torch.cat([value] * -(-size // value.shape[axis]), axis).narrow(axis, 0, size)
            if is_number(value):
                value = value * (0.5 + 0.5 * torch.rand(grown, generator=rng, dtype=torch.float64))
            drawn.append(TEMPER.get((op.name, name), lambda value, _: value)(value, shares))
    return tuple(drawn)


TEMPER = {
    # decays near 1, so that a state lasts for hundreds of steps; a decay of 0 stays a reset
    ("linear_scan", "a_BTD"): lambda value, _: value.abs() ** 0.01 * value.sign(),
    # a recurrent product over more units keeps its size: a larger one is chaotic, and no two precisions agree
    ("gated_loop", "weight_GHJK"): lambda value, shares: value / shares[2],
}
"""What keeps a drawn-out input of one kernel sound."""


def served(op: Kernel, wanted: Any, device: str) -> list[tuple[int, tuple[Any, ...]]]:
    backend = compiled_form(op)
    return [
        (at, case)
        for at, case in enumerate(wanted)
        if backend.refuses(to(case, device), forced=device == "cpu") is None
    ]


def report(op, device, dtype, wanted, *, every=False, reference_on="cpu") -> int:
    """Compare every case that the device's form serves (or every one); fail once, naming all that differ."""
    broken, done = [], 0
    for label, case in forms(op, wanted, dtype):
        if not every and not served(op, [case], device):
            continue
        done += 1
        try:
            got, cotangents = outcome(op, case, device, forced=not every)
            with use_backend("reference"):
                want = outcome(op.reference, widen(case), reference_on, widen(cotangents), adjoint=op._vjp is not None)[
                    0
                ]
            compare(got, want, TOLERANCE[dtype], f"{op.name}, {label}")
        except Exception as error:
            broken.append(f"{label}: {type(error).__name__}: {str(error)[:600]}")
    assert not broken, f"{op.name} in {dtype}, {len(broken)} of {done}:\n" + "\n".join(broken)
    return done


def forms(op: Kernel, wanted: Any, dtype: torch.dtype) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The cases in a dtype; in half precision also with what has no time axis (states, weights) in float32."""
    for label, wide in wanted:
        if dtype != torch.bfloat16:
            yield label, narrow(wide, dtype)
        elif not has_complex(wide):
            yield label, narrow(wide, dtype)
            timed = ["T" in name.rpartition("_")[2] for name, _ in op._defaults]
            halves = zip(timed, narrow(wide, dtype), narrow(wide, torch.float32), strict=True)
            yield f"{label}, float32 states", tuple(half if long else single for long, half, single in halves)


def outcome(op, case, device, cotangents=None, *, adjoint=None, forced=True):
    """Outputs, then the gradients of a fixed weighing of them, and the weights, rounded to the outputs' dtypes."""
    adjoint = op._vjp is not None if adjoint is None else adjoint
    with chosen(device, forced) if isinstance(op, Kernel) else use_backend("reference"):
        inputs = tuple(leaf(value, adjoint) for value in to(case, device))
        outputs = op(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        if cotangents is None:
            rng = torch.Generator().manual_seed(1)
            drawn = (torch.randn(o.shape, generator=rng, dtype=wide_kind(o.dtype)) for o in outputs)
            cotangents = tuple(w.to(o.dtype) if is_number(o) else w for w, o in zip(drawn, outputs, strict=True))
        pairs = [(o, w.to(o.device)) for o, w in zip(outputs, cotangents, strict=True) if o.requires_grad]
        leaves = [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
        grads: Any = ()
        if pairs and leaves:
            grads = torch.autograd.grad([o for o, _ in pairs], leaves, [w for _, w in pairs], allow_unused=True)
    found = [
        torch.zeros_like(v) if grad is None else grad for grad, v in zip(grads, leaves if grads else (), strict=True)
    ]
    return [*(o.detach() for o in outputs), *found], cotangents


def compare(got: list[Tensor], want: list[Tensor], tolerance: float, where: str) -> None:
    assert len(got) == len(want), f"{where}: {len(got)} results, not {len(want)}"
    got, want = ([value.detach().to("cpu", wide_kind(value.dtype)) for value in side] for side in (got, want))
    sizes = [float(value[value.isfinite()].abs().max()) if value.isfinite().any() else 0.0 for value in want]
    most = max(sizes, default=0.0)
    for at, (one, other, size) in enumerate(zip(got, want, sizes, strict=True)):
        assert one.shape == other.shape, f"{where}, result {at}: shape {tuple(one.shape)}, not {tuple(other.shape)}"
        finite = other.isfinite()
        assert torch.equal(one[~finite], other[~finite]), f"{where}, result {at}: infinities differ"
        bound = tolerance * (size if size > CANCELLED * most else most)
        worst = float((one - other)[finite].abs().max()) if finite.any() else 0.0
        assert worst <= bound, f"{where}, result {at}: differs by {worst:.3g}, bound {bound:.3g} (largest {size:.3g})"


def chosen(device: str, forced: bool = True):
    """On the device the kernel chooses for itself, as for a user; on the CPU Triton's interpreter is asked for."""
    return use_backend("triton_cuda" if device == "cpu" and forced else None)


def spoil(device: str) -> None:
    """Leave NaN in the blocks that the caching allocator gives out next."""
    blocks = [
        torch.full((size,), torch.nan, device=device) for size in (64, 1000, 10**4, 10**5, 2 * 10**6) for _ in "12"
    ]
    del blocks


def tensors(case: tuple[Any, ...]) -> list[Tensor]:
    return [value for value in case if isinstance(value, Tensor)]


def largest(case: tuple[Any, ...]) -> int:
    return max(value.numel() for value in tensors(case))


def has_complex(case: tuple[Any, ...]) -> bool:
    return any(value.is_complex() for value in tensors(case))


def is_number(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def wide_kind(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64


def narrow(case: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """Round to a dtype."""

    def one(value: Any) -> Any:
        if not isinstance(value, Tensor) or not is_number(value):
            return value
        return value.to(COMPLEX[dtype] if value.is_complex() else dtype)

    return tuple(one(value) for value in case)


def narrow_all(wanted: Any, dtype: torch.dtype) -> list[tuple[Any, ...]]:
    return [narrow(case, dtype) for case in wanted]


def widen(case: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(v.to(wide_kind(v.dtype)) if isinstance(v, Tensor) and is_number(v) else v for v in case)


def to(case: tuple[Any, ...], device: str) -> tuple[Any, ...]:
    """Move tensors and keep their strides."""
    return tuple(value.to(device) if isinstance(value, Tensor) else value for value in case)


def leaf(value: Any, wanted: bool) -> Any:
    if not isinstance(value, Tensor) or not is_number(value):
        return value
    return value.detach().requires_grad_(wanted)


def transposed(value: Any) -> Any:
    return value.mT.contiguous().mT if isinstance(value, Tensor) and value.ndim > 1 else value


def beside_nan(value: Any) -> Any:
    if not isinstance(value, Tensor) or not is_number(value) or not value.ndim:
        return value
    wide = value.new_full((*value.shape[:-1], 2 * value.shape[-1] + 1), torch.nan)
    wide[..., 1 : value.shape[-1] + 1] = value
    return wide[..., 1 : value.shape[-1] + 1]


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(torch.nan_to_num(one.detach()), torch.nan_to_num(other.detach()))
