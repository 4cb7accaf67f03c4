import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.mixers.ssm.ema import EMA


def build(**options):
    torch.manual_seed(1)
    return EMA(4, EMA.Config(**{"activation": "none", "output": "none"} | options)).double()


def by_recurrence(mixer, x_BTD, direction):
    """The two lines of the docstring, one step after the other."""
    p, damp = mixer.decay[direction].sigmoid(), mixer.damping[direction].sigmoid()
    h, found = torch.zeros(len(x_BTD), 4, p.shape[1]).double(), []
    for x_BD in x_BTD.unbind(1):
        h = (1 - p * damp) * h + p * mixer.weight_in[direction] * x_BD[..., None]
        found.append((h * mixer.weight_out[direction]).sum(-1) / p.shape[1] ** 0.5)
    return torch.stack(found, 1)


@pytest.mark.parametrize("state", [1, 5])
def test_equals_the_recurrence(state):
    mixer, x_BTD = build(state=state), torch.randn(2, 33, 4).double()
    want = by_recurrence(mixer, x_BTD, 0) + mixer.skip * x_BTD
    assert_close(mixer(x_BTD)[0], want)
    y, after = mixer(x_BTD[:, :20], mixer.initial_state(2))
    assert_close(torch.cat([y, mixer(x_BTD[:, 20:], after)[0]], 1), want)


def test_both_directions_have_averages_of_their_own():
    mixer, x_BTD = build(causal=False), torch.randn(2, 21, 4).double()
    ahead = by_recurrence(mixer, x_BTD.flip(1), 1).flip(1)
    ahead = torch.cat([ahead[:, 1:], torch.zeros(2, 1, 4).double()], 1)
    assert_close(mixer(x_BTD)[0], by_recurrence(mixer, x_BTD, 0) + ahead + mixer.skip * x_BTD)


def test_no_average_is_an_error():
    with pytest.raises(ConfigError, match="state"):
        build(state=0)
