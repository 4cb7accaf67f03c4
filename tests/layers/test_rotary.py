import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom import layers
from seqloom.core.errors import ConfigError
from seqloom.layers.rotary import Rotary


@pytest.mark.parametrize("pairs", ["half", "interleaved"])
def test_equals_multiplication_by_a_complex_number(pairs):
    x_BTHK = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    where_BT = torch.tensor([[0, 1, 2, 3, 4], [7, 9, 9, 1000, 2]])
    y_BTHK = Rotary(8, Rotary.Config(theta=100.0, fraction=0.75, pairs=pairs))(x_BTHK, where_BT)
    a, b = ([0, 1, 2], [3, 4, 5]) if pairs == "half" else ([0, 2, 4], [1, 3, 5])
    speed_P = 100.0 ** (-np.arange(3) / 3)
    turn_BT1P = np.exp(1j * where_BT.numpy()[..., None, None] * speed_P)
    want_BTHP = (x_BTHK[..., a] + 1j * x_BTHK[..., b]).numpy() * turn_BT1P
    assert_close(y_BTHK[..., a], torch.from_numpy(want_BTHP.real.copy()))
    assert_close(y_BTHK[..., b], torch.from_numpy(want_BTHP.imag.copy()))
    assert torch.equal(y_BTHK[..., 6:], x_BTHK[..., 6:])


def test_products_depend_on_the_distance_alone():
    rotary, q, k = (
        Rotary(16),
        torch.randn(1, 1, 1, 16, dtype=torch.float64),
        torch.randn(1, 1, 1, 16, dtype=torch.float64),
    )
    products = [
        (rotary(q, torch.tensor([[p]])) * rotary(k, torch.tensor([[p - 3]]))).sum() for p in (3, 50, 4096, 100_000)
    ]
    assert_close(torch.stack(products), products[0].expand(4))


def test_angles_are_float32_under_bfloat16():
    x_BTHK, where_BT = torch.randn(1, 1, 1, 4), torch.tensor([[4095]])
    got = Rotary(4)(x_BTHK.bfloat16(), where_BT)
    assert got.dtype == torch.bfloat16
    assert_close(got.float(), Rotary(4)(x_BTHK.bfloat16().float(), where_BT), rtol=2**-7, atol=2**-7)


def test_bad_options_are_refused():
    for width, options in (
        (1, {}),
        (8, {"fraction": 0.1}),
        (8, {"fraction": 1.5}),
        (8, {"theta": 0.0}),
        (8, {"pairs": "x"}),
    ):
        with pytest.raises(ConfigError, match="rotary"):
            Rotary(width, Rotary.Config(**options))


def test_no_tokens_and_discovery():
    assert Rotary(4)(torch.empty(2, 0, 1, 4), torch.empty(2, 0, dtype=torch.long)).shape == (2, 0, 1, 4)
    assert layers.get("rotary") is Rotary
    assert Rotary.Config.from_json(Rotary.Config(theta=5e5).to_json()) == Rotary.Config(theta=5e5)
