import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom import layers
from seqloom.core.errors import ConfigError
from seqloom.layers.implicit_filter import ImplicitFilter


def build(channels=6, dtype=torch.float64, **options):
    torch.manual_seed(1)
    made = ImplicitFilter(channels, ImplicitFilter.Config(**{"length": 50, "width": 7, **options})).to(dtype)
    torch.nn.init.uniform_(made.frequency, 0.5, 3.0)  # different ones, or a shared scalar would do
    return made


def by_hand(made, length):
    """The published formula tap by tap in numpy: complex exponentials, one frequency vector, an exponential window."""
    options, C, rows = made.config, made.channels, []
    bands = (options.features - 1) // 2
    f = np.linspace(1e-4, bands - 1, bands) if bands > 1 else np.array([1e-4])
    low, high = math.log(options.target) / options.slow, math.log(options.target) / options.fast
    for l in range(length):
        turn = np.exp(-1j * f * 2 * np.pi * l / options.length)
        z = np.concatenate([[l / (options.length - 1)], turn.real, turn.imag])
        for layer in made.inner:
            z = np.sin(
                made.frequency.detach().numpy() * (layer.weight.detach().numpy() @ z + layer.bias.detach().numpy())
            )
        h = made.outer.weight.detach().numpy() @ z
        decay = np.exp(-l / (options.length - 1) * np.abs(np.linspace(low, high, C)))
        rows.append(h * (decay + options.shift) if options.window else h)
    return torch.from_numpy(np.stack(rows, 1))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"features": 3, "layers": 0},
        {"features": 9, "layers": 3, "shift": 0.05, "fast": 0.2, "slow": 0.7, "target": 1e-3},
        {"window": False},
    ],
)
@pytest.mark.parametrize("length", [1, 13, 50, 120])
def test_equals_the_formula(options, length):
    made = build(**options)
    assert_close(made(length), by_hand(made, length), rtol=1e-10, atol=1e-10)


def test_the_length_of_a_row_does_not_change_the_filter():
    """Time is counted in the fixed unit: the trap is to normalise by the row."""
    made = build()
    whole_CT = made(120)
    for length in (0, 1, 2, 49, 50, 51):
        assert_close(made(length), whole_CT[:, :length], rtol=1e-12, atol=1e-12)


def test_one_frequency_vector_serves_every_layer():
    made = build(layers=3)
    assert [name for name, _ in made.named_parameters() if "frequency" in name] == ["frequency"]
    assert made.outer.bias is None
    assert sum(p.numel() for p in made.parameters()) == 7 * 5 + 7 + 3 * (49 + 7) + 7 + 6 * 7


def test_trained_positions_begin_as_the_fixed_ones_and_end():
    made, fixed = build(positions=True, dtype=torch.float32), build(dtype=torch.float32)
    assert_close(made(50), fixed(50))
    made(20).square().sum().backward()
    grad = made.positions.grad
    assert bool((grad[:20] != 0).any())
    assert not bool(grad[20:].any())
    with pytest.raises(ConfigError, match=r"end at length 50, not 51"):
        made(51)


def test_gradients_in_float64():
    made = build(channels=2, length=9)
    names, values = zip(*made.named_parameters(), strict=True)

    def run(*given):
        return torch.func.functional_call(made, dict(zip(names, given, strict=True)), (5,))

    torch.autograd.gradcheck(run, values)


def test_arithmetic_is_float32_under_bfloat16():
    made = build(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made(40), made.float()(40))
    narrow = build(dtype=torch.float32).to(torch.bfloat16)
    want_CT = by_hand(narrow.to(torch.float64), 40)
    got_CT = narrow.to(torch.bfloat16)(40)
    assert got_CT.dtype == torch.float32
    assert_close(got_CT.double(), want_CT, rtol=1e-4, atol=1e-4)  # three layers multiply a rounding by up to 3 each


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"features": 4}, "features"),
        ({"features": 1}, "features"),
        ({"length": 0}, "length"),
        ({"layers": -1}, "layers"),
        ({"target": 1.0}, "target"),
        ({"fast": 2.0}, "fast"),
        ({"frequency": 0.0}, "frequency"),
        ({"shift": -1.0}, "shift"),
    ],
)
def test_bad_options_are_refused(options, word):
    with pytest.raises(ConfigError, match=rf"implicit_filter.*{word}"):
        ImplicitFilter(2, ImplicitFilter.Config(**options))


def test_discovery_and_macs():
    assert layers.get("implicit_filter") is ImplicitFilter
    assert build().macs == 5 * 7 + 2 * 49 + 6 * 7
    with pytest.raises(ConfigError, match="channels"):
        ImplicitFilter(0)
