import pytest
import torch
from torch.testing import assert_close

from seqloom.layers.norm import Norm


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_values_and_gradients_equal_torchs(kind):
    ours = Norm(7, Norm.Config(kind=kind, eps=1e-3)).double()
    theirs = (torch.nn.RMSNorm if kind == "rms" else torch.nn.LayerNorm)(7, eps=1e-3, dtype=torch.float64)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine.uniform_(0.5, 2))
    x = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    assert_close(ours(x), theirs(x))
    grads = [torch.autograd.grad(norm(x).square().sum(), [x, norm.weight]) for norm in (ours, theirs)]
    assert_close(*grads)


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_statistics_are_float32_in_half_precision(kind):
    norm, x = Norm(512, Norm.Config(kind=kind)), 300 * torch.randn(2, 512)  # squares overflow float16
    got = norm(x.half())
    assert got.dtype == torch.float16
    assert_close(got.float(), norm(x.half().float()), rtol=1e-3, atol=1e-3)


def test_only_layer_normalisation_has_a_bias():
    assert [name for name, _ in Norm(3).named_parameters()] == ["weight"]
    assert [name for name, _ in Norm(3, Norm.Config(kind="layer")).named_parameters()] == ["weight", "bias"]


def test_a_vector_of_zeros_stays_finite():
    x = torch.zeros(1, 4, requires_grad=True)
    y = Norm(4)(x)
    y.sum().backward()
    assert bool(y.isfinite().all() & x.grad.isfinite().all())
