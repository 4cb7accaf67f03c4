import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import count_macs
from seqloom.kernels._kernel import use_backend
from seqloom.layers.linear import Linear


@pytest.mark.parametrize("shape", [(33,), (1, 33), (2, 1, 33), (3, 7, 33), (0, 33), (2, 0, 33)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_torch_with_and_without_gradients(shape, bias):
    ours = Linear(33, 5, bias=bias).double()
    theirs = torch.nn.Linear(33, 5, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert_close(ours(x), theirs(x))
    with torch.inference_mode():
        assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
    if x.numel():
        got, want = (torch.autograd.grad(m(x).square().sum(), [x, m.weight])[0] for m in (ours, theirs))
        assert_close(got, want)


def test_a_step_runs_the_narrow_loop_and_a_sequence_does_not(monkeypatch):
    from seqloom.layers import linear

    rows = []
    monkeypatch.setattr(linear, "narrow_linear_now", lambda x, w, b: rows.append(len(x)))
    with torch.no_grad():
        Linear(4, 3)(torch.randn(2, 1, 4))
        Linear(4, 3)(torch.randn(2, 50, 4))
    assert rows == [2]


def test_products_are_counted_in_a_step_too():
    module = Linear(4, 3)
    with torch.no_grad():
        assert count_macs(module, torch.randn(2, 4)).total == 24


def test_the_reference_can_be_asked_for():
    module, x = Linear(40, 3), torch.randn(2, 40)
    with torch.no_grad(), use_backend("reference"):
        assert torch.equal(module(x), torch.nn.functional.linear(x, module.weight, module.bias))
