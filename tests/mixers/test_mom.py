"""Mixture of memories: the delta rule where there is one, one loop a memory, what never mixes, what sees ahead."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from seqloom.core import auxiliary
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.layers.router import Router
from seqloom.mixers.memory._rules import RULES
from seqloom.mixers.memory.gated_delta import GatedDelta
from seqloom.mixers.memory.mom import MoM

RULE = pytest.mark.parametrize("rule", RULES)


def build(width=8, outlets=4, top=2, **options):
    torch.manual_seed(1)
    config = MoM.Config(**{"heads": 2, "router": Router.Config(outlets=outlets, top=top)} | options)
    mixer = MoM(width, config).double()
    torch.nn.init.normal_(mixer.norm.weight)
    return mixer.eval()


def test_one_memory_is_the_gated_delta_rule():
    mixer, plain = build(outlets=1, top=1, shared=False), GatedDelta(8, GatedDelta.Config(heads=2)).double()
    keys, values = mixer.sizes.keys, mixer.sizes.values
    key_value_E, gates_E = mixer.write[0].T.split([keys + values, 4])
    with torch.no_grad():
        plain.qkv.weight.copy_(torch.cat([mixer.query.weight, key_value_E]))
        plain.gates.weight.copy_(gates_E)
    for name in ("conv", "norm", "gate", "out", "writing"):
        getattr(plain, name).load_state_dict(getattr(mixer, name).state_dict())
    x_BTD = torch.randn(2, 37, 8).double()
    assert_close(mixer(x_BTD)[0], plain(x_BTD)[0], rtol=1e-12, atol=1e-12)


@RULE
def test_equals_one_loop_a_memory(rule):
    """Each memory alone over the positions that chose it, weighted and added up by hand."""
    mixer, x_BTD = build(rule=rule), torch.randn(2, 29, 8).double()
    chosen_BTK, weight_BTK = mixer.router(x_BTD)
    total = torch.zeros(2, 29, mixer.sizes.values).double()
    for b in range(2):
        for m in range(5):
            places = [t for t in range(29) if m == 4 or m in chosen_BTK[b, t].tolist()]
            if not places:
                continue
            own = x_BTD[b : b + 1, places]
            line = torch.cat([mixer.query(own), own @ mixer.write[m]], 2)
            state = mixer.initial_state(1)
            o, _, _ = mixer._remember(line, state.s_BMHKV[:, m], state.inputs_BMWE[:, m], None)
            for at, t in enumerate(places):
                hit = (chosen_BTK[b, t] == m).double()
                total[b, t] += o[0, at] * (1.0 if m == 4 else (hit * weight_BTK[b, t]).sum())
    o = mixer.norm(total.unflatten(2, (2, -1))).flatten(2)
    want = mixer.out(o * torch.nn.functional.silu(mixer.gate(x_BTD)))
    assert_close(mixer(x_BTD)[0], want, rtol=1e-10, atol=1e-10)


@RULE
def test_writes_to_other_memories_change_nothing(rule):
    """A memory that is not chosen keeps every bit: it neither decays nor learns."""
    mixer, x_BTD = build(rule=rule, shared=False, top=1), torch.randn(1, 40, 8).double()
    state = mixer(x_BTD[:, :20], mixer.initial_state(1))[1]
    for t in range(20, 40):
        chosen = int(mixer.router(x_BTD[:, t : t + 1]).chosen_BTK)
        after = mixer(x_BTD[:, t : t + 1], state)[1]
        for m in range(4):
            same = torch.equal(after.s_BMHKV[:, m], state.s_BMHKV[:, m])
            assert same == (m != chosen)
        state = after


def test_training_and_evaluation_are_the_same_function():
    """The authors' training convolves across the borders of memories; here borders hold in both modes."""
    mixer, x_BTD = build(), torch.randn(2, 23, 8).double()
    assert torch.equal(mixer.train()(x_BTD)[0], mixer.eval()(x_BTD)[0])


def test_a_short_convolution_never_reaches_into_another_memory():
    mixer, x_BTD = build(top=1, shared=False), torch.randn(1, 30, 8).double()
    chosen_T = mixer.router(x_BTD).chosen_BTK[0, :, 0]
    first = next(t for t in range(1, 30) if chosen_T[t] not in chosen_T[:t])  # opens a memory of its own
    other = x_BTD.clone()
    other[:, first - 1] = torch.randn(8).double()
    if int(mixer.router(other).chosen_BTK[0, first - 1]) == int(chosen_T[first]):
        other[:, first - 1] = x_BTD[:, first - 1] * 1.5
    assert_close(mixer(other)[0][:, first], mixer(x_BTD)[0][:, first], rtol=1e-12, atol=1e-12)


def test_more_memories_than_positions_and_pads_that_choose_none():
    mixer = build(outlets=9, top=3)
    x_BTD = torch.randn(2, 4, 8).double()
    y_BTD, state = mixer(x_BTD, mixer.initial_state(2), layout=Layout(lengths_B=torch.tensor([4, 0])))
    assert y_BTD[1].abs().sum() == 0
    assert state.s_BMHKV[1].abs().sum() == 0
    assert bool(y_BTD.isfinite().all())


def test_a_router_that_sends_everything_to_one_memory():
    mixer, x_BTD = build(), torch.randn(2, 33, 8).double()
    with torch.no_grad():
        mixer.router.map.weight.zero_()  # all alike: the first ones are taken
    y_BTD, state = mixer(x_BTD, mixer.initial_state(2))
    assert bool(y_BTD.isfinite().all())
    assert state.s_BMHKV[:, 2:4].abs().sum() == 0
    assert state.s_BMHKV[:, :2].abs().sum() > 0


def test_a_capacity_drops_the_oldest_and_so_sees_the_future():
    mixer, x_BTD = build(top=1, shared=False, capacity=0.25), torch.randn(1, 24, 8).double()
    early = mixer(x_BTD[:, :12])[0]
    assert (mixer(x_BTD)[0][:, :12] - early).abs().max() > 1e-6
    with pytest.raises(ConfigError, match="cannot continue"):
        mixer.initial_state(1)


def test_the_balance_loss_reaches_the_router_alone_and_only_in_training():
    mixer, x_BTD = build(), torch.randn(2, 23, 8).double()
    with auxiliary.collecting() as added:
        mixer.eval()(x_BTD)
    assert not added
    with auxiliary.collecting() as added:
        mixer.train()(x_BTD)
    added["balance"].backward()
    touched = {name for name, value in mixer.named_parameters() if value.grad is not None}
    assert touched == {"router.map.weight"}


@pytest.mark.parametrize(
    ("options", "said"),
    [({"rule": "gru"}, "rule"), ({"capacity": -1.0}, "capacity"), ({"heads": 3}, "heads")],
)
def test_bad_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        replace(MoM.Config(), **options).build(8)
