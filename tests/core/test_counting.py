import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from seqloom.core import counting
from seqloom.core._mac_formulas import formula_of, is_move, is_unknown
from seqloom.core.counting import BACKWARD, Counter, Parameters, addend, count_macs, parameters, report, saved_bytes
from seqloom.core.errors import ConfigError

B, T, D, H = 2, 6, 8, 2


@torch.library.custom_op("seqloom::counted_numba_cpu", mutates_args=())
def counted(x: Tensor, times: int = 3) -> Tensor:
    return (x @ x) * times


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(counting, "_added", {})


def rand(*shape, dtype=torch.float32, grad=False):
    return torch.randn(*shape, dtype=dtype, requires_grad=grad)


CLOSED_FORMS = {
    "linear": (nn.Linear(D, 5), (rand(B, T, D),), B * T * D * 5),
    "linear without bias": (nn.Linear(D, 5, bias=False), (rand(B, T, D),), B * T * D * 5),
    "depthwise conv1d": (nn.Conv1d(D, D, 4, groups=D, padding=3), (rand(B, D, T),), B * D * (T + 3) * 4),
    "conv1d": (nn.Conv1d(D, 5, 3, stride=2), (rand(B, D, T),), B * 5 * 2 * D * 3),
    "transposed conv1d": (nn.ConvTranspose1d(D, 5, 3, stride=2), (rand(B, D, T),), B * T * D * 5 * 3),
    "bmm": (torch.bmm, (rand(B, T, D), rand(B, D, 3)), B * T * D * 3),
    "matrix vector": (torch.mv, (rand(T, D), rand(D)), T * D),
    "dot": (torch.dot, (rand(D), rand(D)), D),
    "complex matmul": (torch.matmul, (rand(T, D, dtype=torch.cfloat), rand(D, 3, dtype=torch.cfloat)), 4 * T * D * 3),
    "einsum": (lambda q, k: torch.einsum("bqd,bkd->bqk", q, k), (rand(B, T, D), rand(B, 5, D)), B * T * 5 * D),
    "rfft": (torch.fft.rfft, (rand(B, 16),), B * 5 * 16 * 4 / 4),
    "irfft": (lambda x: torch.fft.irfft(x, n=16), (rand(B, 9, dtype=torch.cfloat),), B * 5 * 16 * 4 / 4),
    "fft": (torch.fft.fft, (rand(B, 16, dtype=torch.cfloat),), B * 5 * 16 * 4 / 2),
    "fft over two axes": (torch.fft.fft2, (rand(4, 8, dtype=torch.cfloat),), 5 * 32 * 5 / 2),
    "lstm": (nn.LSTM(D, 3, batch_first=True), (rand(B, T, D),), B * T * 4 * 3 * (D + 3)),
    "gru": (nn.GRU(D, 3, bidirectional=True, batch_first=True), (rand(B, T, D),), 2 * B * T * 3 * 3 * (D + 3)),
    "bilinear": (nn.Bilinear(D, 3, 5), (rand(T, D), rand(T, 3)), 2 * T * D * 3 * 5),
    "cdist": (torch.cdist, (rand(T, D), rand(5, D)), T * 5 * D),
    "inverse": (torch.linalg.inv, (torch.eye(D),), D**3),
    "solve": (torch.linalg.solve, (torch.eye(6), rand(6, 5)), 6**3 / 3 + 6 * 6 * 5),
    "cholesky": (torch.linalg.cholesky, (torch.eye(6),), 6**3 / 6),
    "attention": (
        F.scaled_dot_product_attention,
        (rand(B, H, T, D), rand(B, H, 5, D), rand(B, H, 5, D)),
        B * H * T * 5 * 2 * D,
    ),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_closed_forms_in_every_grad_mode(name, mode):
    fn, inputs, want = CLOSED_FORMS[name]
    with mode():
        macs = count_macs(fn, *inputs)
    assert macs.total == want
    assert macs.flops == 2 * want
    assert sum(macs.by_op.values()) == sum(macs.by_module.values()) == macs.total


def both(run):
    """MACs as we count them, and torch's own count."""
    with FlopCounterMode(display=False) as theirs:
        run()
    with Counter() as ours:
        run()
    return ours.macs.flops, theirs.get_total_flops()


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Linear(D, 5), nn.ReLU(), nn.Linear(5, 3)), (B, T, D)),
        (nn.Conv1d(D, 5, 3, padding=1), (B, D, T)),
        (nn.ConvTranspose1d(D, 5, 3, stride=2), (B, D, T)),
        (nn.Conv2d(3, 5, 3, stride=2), (B, 3, T, D)),
        (nn.MultiheadAttention(D, H, batch_first=True), (B, T, D)),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, nn.Module) else "",
)
def test_forward_and_backward_agree_with_torch(module, shape):
    x = rand(*shape, grad=True)
    attends = isinstance(module, nn.MultiheadAttention)

    def run():
        with sdpa_kernel(SDPBackend.MATH):  # torch's counter does not know the CPU's fused attention
            y = module(x, x, x, need_weights=False)[0] if attends else module(x)
            y.sum().backward()

    ours, theirs = both(run)
    assert ours == theirs > 0


def test_fused_attention_backward_is_the_formula_of_torch():
    q, k = rand(1, H, T, D, grad=True), rand(1, H, 5, D, grad=True)

    def run():
        F.scaled_dot_product_attention(q, k, k).sum().backward()

    with Counter() as counter:
        run()
    forward, backward = H * T * 5 * 2 * D, H * T * 5 * 5 * D  # backward: scores again, dV, dP, dQ, dK
    assert counter.macs.by_op == {
        "aten::_scaled_dot_product_flash_attention_for_cpu": forward,
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward": backward,
    }


def test_attention_formulas_with_values_of_another_width():
    from torch.utils.flop_counter import flop_registry

    q, k, v = rand(B, 2 * H, T, D), rand(B, H, 5, D), rand(B, H, 5, 3)  # grouped queries as well
    grad = rand(B, 2 * H, T, 3)
    for name, args in (("", (q, k, v)), ("_backward", (grad, q, k, v))):
        op = f"_scaled_dot_product_efficient_attention{name}"
        want = flop_registry[getattr(torch.ops.aten, op)](*args, out_val=None)
        assert 2 * formula_of(f"aten::{op}", {})(args, None) == want


class Tree(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(D, D), nn.Linear(D, 3))
        self.inner2 = nn.Linear(3, 3)
        self.weight = nn.Parameter(rand(3, 3))

    def forward(self, x):
        return self.inner2(self.inner(x)) @ self.weight


def test_counts_by_module_path():
    macs = count_macs(Tree(), rand(T, D))
    assert macs.by_module == {"inner.0": T * D * D, "inner.1": T * D * 3, "inner2": T * 9, "": T * 9}
    assert macs.under("inner") == T * D * D + T * D * 3
    assert macs.under("") == macs.total


def test_functions_name_modules_by_class_and_backward_apart():
    tree = Tree()
    macs = count_macs(lambda x: tree(x).sum().backward(), rand(T, D))
    forward = T * D * D + T * D * 3 + 2 * T * 9
    assert macs.under("Tree") == forward
    assert macs.by_module[BACKWARD] == 2 * forward - T * D * D  # the first layer's input needs no gradient


def test_checkpoint_counts_the_second_forward():
    net, x = nn.Sequential(nn.Linear(D, 3), nn.Tanh(), nn.Linear(3, D)), rand(T, D, grad=True)
    macs = count_macs(lambda: checkpoint(net, x, use_reentrant=False).sum().backward())
    once = T * D * 3  # torch stops the second forward before the last product, whose result nobody needs
    assert macs.by_module == {"Sequential.0": 2 * once, "Sequential.2": once, BACKWARD: 4 * once}


def test_elementwise_is_apart_and_moves_are_free():
    x = rand(T, D)
    assert count_macs(lambda: x + x[:1]).elementwise == T * D
    assert count_macs(lambda: x.sum()).elementwise == T * D
    assert count_macs(lambda: x.softmax(-1)).elementwise == T * D
    assert count_macs(lambda: torch._foreach_add([x, x], 1.0)).elementwise == 2 * T * D
    moves = count_macs(
        lambda: torch.cat([x.mT.contiguous(), torch.zeros(D, 2)], 1)[:, [0, 1]].reshape(-1).to(torch.float64)
    )
    assert (moves.total, moves.elementwise) == (0, 0)


@pytest.mark.parametrize("fn", [lambda: torch.linalg.eigh(torch.eye(3)), lambda: counted(torch.eye(3))])
def test_an_op_of_unknown_cost_is_an_error_or_listed(fn):
    with pytest.raises(ConfigError, match=r"no MAC formula for (aten::_linalg_eigh|seqloom::counted_numba_cpu)"):
        count_macs(fn)
    macs = count_macs(fn, strict=False)
    assert macs.total == 0
    assert list(macs.unknown.values()) == [1]


def test_no_product_of_aten_is_cheap_by_its_name():
    heavy = "_weight_int8pack_mm hspmm matmul_backward cudnn_convolution _flash_attention_forward linalg_qr _linalg_svd"
    light = "relu value_selecting gamma hamming_window upsample_bilinear2d linalg_vector_norm _weight_norm_interface"
    assert all(is_unknown(f"aten::{name}") and not is_move(f"aten::{name}") for name in heavy.split())
    assert not any(is_unknown(f"aten::{name}") for name in light.split())


def test_addend_serves_every_backend_of_a_kernel():
    @addend("seqloom::counted")
    def formula(args, out):
        x, times = args
        return x.shape[0] * out.numel() * times

    assert count_macs(counted, torch.eye(4)).by_op == {
        "seqloom::counted_numba_cpu": 4 * 16 * 3
    }  # the default filled in
    assert count_macs(lambda: counted(torch.eye(4), times=2)).total == 4 * 16 * 2
    with pytest.raises(ConfigError, match="already"):
        addend("seqloom::counted")(formula)


def test_report_takes_the_place_of_its_block():
    layer, x = nn.Linear(D, 3), rand(T, D)

    def run():
        layer(x)
        with report("scan", 7), report("inside", 100):
            layer(x)

    macs = count_macs(run)
    assert macs.by_op == {"aten::addmm": T * D * 3, "scan": 7}


def test_report_asks_only_while_something_counts():
    asked = []

    def price():
        asked.append(1)
        return 5

    with report("scan", price):
        pass
    assert not asked
    with Counter() as outer, Counter() as inner, report("scan", price):
        pass
    assert outer.macs.total == inner.macs.total == 5


def test_nothing_is_left_behind_after_an_error():
    broken = nn.Sequential(nn.Linear(D, 3), nn.Linear(D, 3))
    with pytest.raises(RuntimeError):
        count_macs(broken, rand(T, D))
    assert not counting._open
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks


def test_parameters_count_shared_ones_once():
    tied = nn.Sequential(nn.Embedding(5, D), nn.Linear(D, 5, bias=False))
    tied[1].weight = tied[0].weight
    assert parameters(tied) == Parameters(held=5 * D, used=None)
    assert parameters(tied, lambda: tied(torch.tensor([1])).sum()) == Parameters(5 * D, 5 * D)
    assert tied[0].weight.grad is None


def test_parameters_tell_used_from_held():
    tree = Tree()
    tree.inner2.requires_grad_(False)
    held = (D * D + D) + (D * 3 + 3) + (9 + 3) + 9
    assert parameters(tree, tree(rand(T, D)).sum()) == Parameters(held, held - 12)
    assert parameters(tree, lambda: tree.inner[0](rand(T, D))).used == D * D + D
    assert parameters(tree, torch.zeros(())).used == 0


def test_parameters_of_one_storage():
    flat = torch.zeros(10)
    disjoint = nn.ParameterList([nn.Parameter(flat[:4]), nn.Parameter(flat[6:])])
    assert parameters(disjoint).held == 8
    overlapping = nn.ParameterList([nn.Parameter(flat[:6]), nn.Parameter(flat[4:]), nn.Parameter(flat.view(2, 5).mT)])
    assert parameters(overlapping).held == 10
    with torch.device("meta"):
        assert parameters(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))).held == 9 + 8


def test_saved_bytes_by_hand():
    x, layer = rand(T, D, grad=True), nn.Linear(D, 3)
    assert saved_bytes(layer, x) == T * D * 4  # the weight is saved too, and is a parameter
    assert saved_bytes(layer, x, count_inputs=False) == 0
    assert saved_bytes(lambda x: layer(x), x) == T * D * 4  # found as a parameter inside a function as well
    assert saved_bytes(torch.tanh, x) == T * D * 4
    assert saved_bytes(lambda x: x.exp() * x.exp(), x) == 2 * T * D * 4  # an output that is input again counts once
    assert saved_bytes(lambda x: x + 1, x) == 0
    assert saved_bytes(lambda x: x[:1] * x[1:2], x) == T * D * 4  # two views of one storage
    assert saved_bytes(lambda x: (x.tanh() * layer.weight[0, 0]).sum(), x) == T * D * 4  # a view of a parameter
    saved_bytes(lambda x: layer(x.exp()).sum().backward(), x)
    assert torch.allclose(x.grad, layer.weight.sum(0) * x.exp())  # what is handed back to autograd is what it saved


def test_saved_bytes_forget_what_nothing_uses():
    def wasteful(x):
        x.exp().exp()
        return x.tanh()

    x = rand(T, D, grad=True)
    assert saved_bytes(wasteful, x) == T * D * 4
    with torch.no_grad():
        assert saved_bytes(wasteful, x) == 0


def test_saved_bytes_of_a_checkpoint_is_its_input():
    x, net = rand(T, D, grad=True), nn.Sequential(nn.Linear(D, 64), nn.Tanh(), nn.Linear(64, D))
    plain = saved_bytes(net, x)
    assert plain == (T * D + T * 64) * 4
    assert saved_bytes(lambda x: checkpoint(net, x, use_reentrant=False), x) == T * D * 4


def test_saved_bytes_leave_out_inputs_inside_trees():
    @dataclass
    class Pair:
        left: Tensor
        right: dict[str, Tensor]

    pair = Pair(rand(T, D, grad=True), {"x": rand(T, D, grad=True)})
    product = lambda p: p.left * p.right["x"]  # noqa: E731
    assert saved_bytes(product, pair) == 2 * T * D * 4
    assert saved_bytes(product, pair, count_inputs=False) == 0


def test_fft_of_odd_and_single_lengths_is_whole():
    assert count_macs(torch.fft.rfft, rand(3)).total == math.ceil(2.5 / 2 * 3 * math.log2(3))
    assert count_macs(torch.fft.rfft, rand(B, 1)).total == 0
