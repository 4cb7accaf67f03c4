"""What an operator costs: multiply-accumulates of the GEMM-like ones, elements of the others.

    formula(args, out) -> MACs    args: every argument of the op in schema order, defaults filled in; out: its result

Shapes: m, k, n as in an (m, k) x (k, n) product; Q, S query and key lengths; N transform length.
Source: Frigo and Johnson, "The design and implementation of FFTW3", 2005, section V (5 N log2 N); Golub and Van Loan,
"Matrix computations", 4th ed., chapters 3 and 4 (LU, Cholesky, triangular solve).
"""

import math
import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

Formula = Callable[[tuple[Any, ...], Any], int]


def numel(tree: Any) -> int:
    """Count the elements of a tensor or of a list of tensors; anything else has none."""
    if isinstance(tree, Tensor):
        return tree.numel()
    return sum(map(numel, tree)) if isinstance(tree, list | tuple) else 0


def _product(a: int, b: int) -> Formula:
    """A matrix product of arguments a and b: every element of the left one meets every column of the right one."""
    return lambda args, _out: args[a].numel() * (args[b].shape[-1] if args[b].ndim > 1 else 1)


def _linear_backward(args: tuple[Any, ...], _out: Any) -> int:
    _, grad, weight, mask = args
    return grad.numel() * weight.shape[1] * (mask[0] + mask[1])


def _grouped(args: tuple[Any, ...], _out: Any) -> int:
    a, b = args[:2]
    split_columns = a.ndim == 3 and b.ndim == 2  # each group multiplies its own columns of b
    return a.shape[1] * b.numel() if split_columns else a.numel() * b.shape[-1]


def _convolution(args: tuple[Any, ...], out: Any) -> int:
    x, weight, transposed = args[0], args[1], args[6]
    return (x if transposed else out).numel() * math.prod(weight.shape[1:])


def _convolution_backward(args: tuple[Any, ...], _out: Any) -> int:
    grad, x, weight, transposed, mask = args[0], args[1], args[2], args[7], args[10]
    return (x if transposed else grad).numel() * math.prod(weight.shape[1:]) * (mask[0] + mask[1])


def _attention(args: tuple[Any, ...], _out: Any) -> int:
    query, key, value = args[:3]
    scores = query.numel() // max(query.shape[-1], 1) * key.shape[-2]  # the whole rectangle, causal or not
    return scores * (query.shape[-1] + value.shape[-1])


def _attention_backward(args: tuple[Any, ...], _out: Any) -> int:
    _, query, key, value = args[:4]
    scores = query.numel() // max(query.shape[-1], 1) * key.shape[-2]
    return scores * (3 * query.shape[-1] + 2 * value.shape[-1])  # QK again, dQ, dK; dP, dV


def _fft(flops_by_point: float) -> Formula:
    def macs(args: tuple[Any, ...], out: Any) -> int:
        points = max((args[0], out), key=numel)  # the longer side is the full transform
        length = math.prod(points.shape[d] for d in args[1])
        return math.ceil(flops_by_point / 2 * points.numel() * math.log2(max(length, 1)))

    return macs


def _trilinear(args: tuple[Any, ...], _out: Any) -> int:
    """Sum over the broadcast product of three tensors, each of which gets new dimensions first."""
    shapes = []
    for x, added in zip(args[:3], args[3:6], strict=True):
        shape = list(x.shape)
        for d in sorted(added):
            shape.insert(d, 1)
        shapes.append(shape)
    return 2 * math.prod(map(max, zip(*shapes, strict=True)))


def _rnn(passes: int) -> Formula:
    def macs(args: tuple[Any, ...], _out: Any) -> int:
        weights = args[1] if isinstance(args[1], list | tuple) else args[1:3]
        return passes * math.prod(args[0].shape[:-1]) * sum(w.numel() for w in weights if w.ndim == 2)

    return macs


def _factor(cubes: float) -> Formula:
    """``cubes`` n^3 MACs for each square matrix of argument 0."""
    return lambda args, _out: math.ceil(cubes * args[0].numel() * args[0].shape[-1])


def _solve(args: tuple[Any, ...], _out: Any) -> int:
    return math.ceil(args[0].numel() * args[0].shape[-1] / 3) + args[0].shape[-1] * args[1].numel()


def _triangular(args: tuple[Any, ...], _out: Any) -> int:
    return math.ceil(args[0].shape[-1] * args[1].numel() / 2)


def _real(formula: Formula) -> Formula:
    """Four real products make a complex one."""
    return lambda args, out: formula(args, out) * (4 if args[0].is_complex() else 1)


_ATTENTION = (
    "flash_attention",
    "flash_attention_for_cpu",
    "efficient_attention",
    "cudnn_attention",
    "fused_attention_overrideable",
)
_PRODUCTS: dict[str, Formula] = {
    **dict.fromkeys(("aten::mm", "aten::bmm", "aten::mv", "aten::dot", "aten::vdot"), _product(0, 1)),
    **dict.fromkeys(("aten::_int_mm", "aten::_scaled_mm"), _product(0, 1)),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm", "aten::addbmm", "aten::addmv"), _product(1, 2)),
    "aten::_addmm_activation": _product(1, 2),
    "aten::_grouped_mm": _grouped,
    "aten::linear": lambda args, out: out.numel() * args[1].shape[-1],
    "aten::linear_backward": _linear_backward,
    "aten::_cdist_forward": lambda args, out: out.numel() * args[0].shape[-1],
    "aten::convolution": _convolution,
    "aten::convolution_backward": _convolution_backward,
    **{f"aten::_scaled_dot_product_{name}": _attention for name in _ATTENTION},
    **{f"aten::_scaled_dot_product_{name}_backward": _attention_backward for name in _ATTENTION},
    "aten::_trilinear": _trilinear,
    **dict.fromkeys(("aten::mkldnn_rnn_layer", "aten::_cudnn_rnn"), _rnn(1)),
    **dict.fromkeys(("aten::mkldnn_rnn_layer_backward", "aten::_cudnn_rnn_backward"), _rnn(2)),
    "aten::linalg_inv_ex": _factor(1.0),
    "aten::linalg_lu_factor_ex": _factor(1 / 3),
    "aten::linalg_cholesky_ex": _factor(1 / 6),
    "aten::_linalg_solve_ex": _solve,
    "aten::linalg_solve_triangular": _triangular,
}
FORMULAS: dict[str, Formula] = {
    **{name: _real(formula) for name, formula in _PRODUCTS.items()},
    "aten::_fft_c2c": _fft(5.0),
    **dict.fromkeys(("aten::_fft_r2c", "aten::_fft_c2r"), _fft(2.5)),
}

# Nothing is computed: memory is made, filled or moved. Views are recognised by the op itself.
_MOVES = re.compile(
    r"""_*(alias|arange|as_strided|cat|chunk_cat|clone|constant_pad_nd|copy|detach|diag_embed|diagonal|embedding|
    empty|expand|eye|fill|flip|full|gather|im2col|index|index_copy|index_fill|index_put|index_select|lift|lift_fresh|
    linspace|local_scalar_dense|logspace|masked_fill|masked_scatter|masked_select|narrow|new_empty|new_full|new_ones|
    new_zeros|nonzero|ones|permute|pin_memory|pixel_shuffle|pixel_unshuffle|repeat|repeat_interleave|reshape|
    reshape_alias|resize|roll|scalar_tensor|scatter|select|select_scatter|set|slice|slice_scatter|split|
    split_with_sizes|stack|take|to_copy|tril|tril_indices|triu|triu_indices|unbind|unfold|unsafe_index|
    unsafe_split|unsafe_split_with_sizes|unsafe_view|view|zero|zeros)
    (_like|_strided|_copy|_permuted|_backward|_impl)*_?""",
    re.VERBOSE,
)
# Names of products, factorisations, transforms and fused networks: without a formula these must not count as cheap.
_HEAVY = re.compile(
    r"""mm(_|$)|mv_?$|dot(_|$)|conv(?!ert)|attention|linear|linalg|fft|rnn|lstm|gru(_|$)|dist_|matmul|solve|chol|(^|_)eig|svd|
    (^|_)(qr|lu|ormqr|geqrf)(_|$)|transformer""",
    re.VERBOSE,
)
_LIGHT = re.compile(
    r"upsample|freq|_thnn_fused|linalg_(vector_norm|_powsum|cross)|_linalg_check_errors|lu_unpack|flatten|reorder"
)
_SILENT_SPACES = {"profiler", "prim", "c10d", "_c10d_functional", "_c10d_functional_autograd"}
_BACKEND = re.compile(r"_[a-z0-9]+_(cpu|cuda|mps|xpu)$")


def formula_of(name: str, added: dict[str, Formula]) -> Formula | None:
    """Find the formula of an op; a kernel's backends (``seqloom::scan_numba_cpu``) share that of the kernel."""
    for key in (name, name.rstrip("_"), _BACKEND.sub("", name)):
        if found := added.get(key) or FORMULAS.get(key):
            return found
    return None


def is_move(name: str) -> bool:
    """Whether the op only makes or moves memory, or talks to something other than the arithmetic units."""
    space, _, base = name.partition("::")
    return space in _SILENT_SPACES or (space == "aten" and _MOVES.fullmatch(base) is not None)


def is_unknown(name: str) -> bool:
    """Whether an op without a formula may hide products: a GEMM-like name, or an op that is not torch's own."""
    space, _, base = name.partition("::")
    return space not in ("aten", "prims") or (_HEAVY.search(base) is not None and _LIGHT.search(base) is None)
