import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import Counter
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.narrow_linear import MOST, narrow_linear, narrow_linear_now


def draw(rows, inputs=33, outputs=21, dtype=torch.float32):
    return (torch.randn(s, dtype=dtype) for s in ((rows, inputs), (outputs, inputs), (outputs,)))


@pytest.mark.parametrize("rows", range(1, MOST + 1))
@pytest.mark.parametrize("biased", [True, False])
def test_every_remainder_of_rows_equals_torch(rows, biased):
    x, w, b = draw(rows, dtype=torch.float64)
    b = b if biased else None
    with torch.no_grad():
        got = narrow_linear_now(x, w, b)
    assert_close(got, torch.nn.functional.linear(x, w, b), rtol=1e-12, atol=1e-12)


def test_long_sums_keep_float32s_precision():
    x, w, b = draw(8, 4096, 50)
    with torch.inference_mode():
        got = narrow_linear_now(x, w, b).double()
    far = (got - torch.nn.functional.linear(x.double(), w.double(), b.double())).abs().max()
    # K sums of partial sums of about sqrt(K), each rounded: sqrt(K) sqrt(K) eps in whatever order; how many partial
    # sums run side by side is the processor's choice, and with it a factor of sqrt(lanes)
    assert far < 4096 * torch.finfo(torch.float32).eps


def test_nan_and_infinity_are_seen():
    x, w, b = draw(2)
    w[3, 4], w[5, 6] = torch.nan, torch.inf
    with torch.no_grad():
        y = narrow_linear_now(x, w, b)
    assert bool(y[:, 3].isnan().all())
    assert bool(y[:, 5].isinf().all())
    assert int(y.isfinite().sum()) == 2 * 19


def test_it_steps_aside_where_another_form_has_to_run():
    x, w, b = draw(2)
    assert narrow_linear_now(x, w, b) is None, "with gradients"
    with torch.no_grad():
        assert narrow_linear_now(x, w, b) is not None
        assert narrow_linear_now(x[:0], w, b) is None, "no rows"
        assert narrow_linear_now(x.double(), w, b) is None, "two dtypes"
        assert narrow_linear_now(x.bfloat16(), w.bfloat16(), b.bfloat16()) is None, "half precision"
        assert narrow_linear_now(torch.randn(MOST + 1, 33), w, b) is None, "many rows"
        assert narrow_linear_now(x, torch.randn(33, 21).t(), b) is None, "transposed weights"
        assert narrow_linear_now(x.to("meta"), w.to("meta"), b.to("meta")) is None, "no memory"
        with use_backend("reference"):
            assert narrow_linear_now(x, w, b) is None, "the reference was asked for"
        with torch.autocast("cpu", torch.bfloat16):
            assert narrow_linear_now(x, w, b) is None, "autocast"
        with Counter():
            assert narrow_linear_now(x, w, b) is None, "somebody counts"


def test_explain_names_the_loop():
    chosen = [verdict.backend for verdict in narrow_linear.explain(*draw(2)) if verdict.runs]
    assert chosen == ["numba_cpu"]
    refused = {verdict.backend: verdict.reason for verdict in narrow_linear.explain(*draw(99))}
    assert "rows" in refused["numba_cpu"]
