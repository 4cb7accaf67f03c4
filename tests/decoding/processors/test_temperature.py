import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.decoding.processors.temperature import Temperature

logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))


def test_probabilities_are_raised_to_the_inverse_temperature():
    got = Temperature(Temperature.Config(value=0.5))(logits, None, None).softmax(1)
    want = logits.softmax(1) ** 2
    torch.testing.assert_close(got, want / want.sum(1, keepdim=True))


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_only_positive_temperatures(value):
    with pytest.raises(ConfigError, match="temperature"):
        Temperature(Temperature.Config(value=value))


@pytest.mark.parity
def test_equals_transformers():
    warper = pytest.importorskip("transformers").TemperatureLogitsWarper
    got = Temperature(Temperature.Config(value=0.7))(logits, None, None)
    torch.testing.assert_close(got, warper(0.7)(None, logits))
