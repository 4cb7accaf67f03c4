"""Each check is shown to fail on a mixer that is broken in just the way that it is there to find."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seqloom.testing
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.testing.mixers import CHECKS, check_mixer

TRAITS = Traits(causal="exact", step="constant", rollback="recorded", packing="native")


class Toy(Mixer):
    """A gated mean, h = a h + (1 - a) W x, that is right unless its options name a defect."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        h_BD: Tensor
        room: int = 1 << 30

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        defect: str = ""
        chunk: int = 4
        declared: Traits = field(default=TRAITS, hash=False)

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        return config.declared

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        self.gate, self.value = nn.Linear(width, width), nn.Linear(width, width)
        if self.config.defect == "unused parameter":
            self.spare = nn.Parameter(torch.ones(3))
        if self.config.defect == "own seed":
            torch.manual_seed(0)
            self.gate, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.calls, self.kept = 0, None

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        h_BD = self.gate.weight.new_zeros(batch, self.width)
        return self.State(h_BD=h_BD, length_B=self.no_length(batch), room=capacity or 1 << 30)

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup(names=("gaet.bias",))] if self.config.defect == "misspelt group" else []

    def flops(self, length: int) -> int:
        return (2 if self.config.defect == "half the operations" else 4) * length * self.width**2

    def state_bytes(self, length: int) -> int:
        return self.width * (2 if self.config.defect == "half the bytes" else 4) + 8

    def _check(self, *given: Any) -> None:
        if self.config.defect != "accepts everything":
            super()._check(*given)

    def mix(
        self, x_BTD: Tensor, state: BaseState | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, BaseState | None]:
        defect, length = self.config.defect, x_BTD.shape[1]
        before: Any = self.initial_state(len(x_BTD)) if state is None else state
        h_BD = torch.zeros_like(before.h_BD) if defect == "forgets its state" else before.h_BD
        if defect == "state on the module":
            h_BD = h_BD if self.kept is None or len(self.kept) != len(h_BD) else self.kept
        if defect == "couples rows":
            x_BTD = x_BTD - 0.01 * x_BTD.mean(0)
        if defect == "sees the future" and length > 1:
            x_BTD = x_BTD + 0.01 * x_BTD.roll(-1, 1)
        a_BTD, rest_BTD = self.gates(x_BTD)
        u_BTD = rest_BTD * self.value(x_BTD)
        valid_BT, outputs = layout.valid_BT(length), []
        for t in range(length):
            if layout.starts_BT is not None and defect != "leaks between segments":
                h_BD = h_BD.masked_fill(layout.starts_BT[:, t, None], 0)
            if defect == "forgets between chunks" and t % self.config.chunk == 0:
                h_BD = 0.5 * h_BD
            if defect == "wraps around" and state is not None and int(before.length_B.max()) + t > before.room:
                h_BD = torch.zeros_like(h_BD)
            if defect == "stale gradient":
                h_BD = h_BD.detach()
            new_BD = a_BTD[:, t] * h_BD + u_BTD[:, t]
            moves = valid_BT is None or defect == "pads move the state"
            h_BD = new_BD if moves or valid_BT is None else torch.where(valid_BT[:, t, None], new_BD, h_BD)
            outputs.append(h_BD)
        y_BTD = self.spoil(torch.stack(outputs, 1), layout)
        if defect == "state on the module":
            self.kept = h_BD.detach()
        if defect == "writes into its state" and state is not None:
            before.h_BD.data.add_(1)
        if state is None:
            return y_BTD, None
        return y_BTD, replace(before, h_BD=h_BD, length_B=layout.advance(before.length_B, length), trail=None)

    def gates(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        s_BTD = self.gate(x_BTD)
        if self.config.defect == "overflows":
            return s_BTD.exp() / (1 + s_BTD.exp()), torch.log(1 - s_BTD.sigmoid()).exp()
        if self.config.defect == "never forgets":
            return torch.ones_like(s_BTD) + 0 * s_BTD, s_BTD.sigmoid()
        return s_BTD.sigmoid(), (-s_BTD).sigmoid()

    def spoil(self, y_BTD: Tensor, layout: Layout) -> Tensor:
        defect = self.config.defect
        if defect == "five is odd" and y_BTD.shape[1] == 5:
            return y_BTD + 1
        if defect == "misreads positions" and layout.positions_BT is not None:
            return y_BTD + layout.positions_BT[..., None]
        if defect == "wanders":
            self.calls += 1
            return y_BTD + 0.01 * self.calls
        if defect == "noisy":
            return y_BTD + 0.01 * torch.rand_like(y_BTD)
        if defect == "breaks the graph" and float(y_BTD.detach().sum()) > 1e9:
            return y_BTD + 1
        if defect == "coarse in bfloat16" and y_BTD.dtype == torch.bfloat16:
            return (8 * y_BTD).round() / 8
        return y_BTD


def broken(defect: str = "", **traits: Any) -> Toy.Config:
    return Toy.Config(defect=defect, declared=replace(TRAITS, **traits))


CASES = [
    ("declaration", broken("misspelt group")),
    ("continuation", broken("forgets its state")),
    ("lengths", broken("five is odd")),
    ("blocks", broken("forgets between chunks")),
    ("capacity", broken("wraps around")),
    ("causality", broken("sees the future")),
    ("causality", broken("sees the future", causal="fft")),
    ("packing", broken("leaks between segments")),
    ("padding", broken("pads move the state")),
    ("packing", broken("pads move the state")),
    ("positions", broken("misreads positions")),
    ("batch", broken("couples rows")),
    ("tree", broken(tree=True)),
    ("exchange", broken(sequence_comm="local")),
    ("select", broken("state on the module")),
    ("fork", broken("writes into its state")),
    ("rollback", broken(rollback="free")),
    ("rollback", broken(records="native")),
    ("rollback", broken("pads move the state")),
    ("state_bytes", broken("half the bytes")),
    ("purity", broken("state on the module")),
    ("purity", broken("wanders")),
    ("gradcheck", broken("stale gradient")),
    ("gradcheck", broken("unused parameter")),
    ("bfloat16", broken("coarse in bfloat16")),
    ("extremes", broken("overflows")),
    ("initial_scale", broken("never forgets")),
    ("determinism", broken("noisy")),
    ("determinism", broken("own seed")),
    ("compilation", broken("breaks the graph")),
    ("flops", broken("half the operations")),
    ("refusals", broken("accepts everything")),
    ("linearity", broken(lti=True)),
]


@pytest.mark.parametrize("check", CHECKS)
def test_a_sound_mixer_passes(check: str) -> None:
    assert check_mixer(Toy.Config(), checks=[check], full=True) == {check: "holds"}


@pytest.mark.parametrize(
    ("check", "config"), [pytest.param(c, k, id=f"{c}-{k.defect or n}") for n, (c, k) in enumerate(CASES)]
)
def test_a_broken_mixer_is_found(check: str, config: Toy.Config) -> None:
    with pytest.raises(AssertionError, match=rf"\n  {check}: ") as caught:
        check_mixer(config, checks=[check])
    assert not isinstance(caught.value.__cause__, AttributeError | TypeError | NameError), "found by accident"


def test_every_check_is_shown_to_fail() -> None:
    assert {check for check, _ in CASES} == set(CHECKS)


def test_all_broken_checks_are_told_at_once() -> None:
    with pytest.raises(AssertionError) as caught:
        check_mixer(broken("pads move the state"), checks=["padding", "batch", "rollback"])
    assert "padding: " in str(caught.value)
    assert "rollback: " in str(caught.value)
    assert "batch: " not in str(caught.value)


def test_a_reasoned_gap_is_reported_and_not_an_error() -> None:
    config = broken("half the bytes", known_gaps={"state_bytes": "counts half of them"})
    assert check_mixer(config, checks=["state_bytes", "batch"]) == {
        "state_bytes": "counts half of them",
        "batch": "holds",
    }


def test_a_gap_that_is_closed_is_an_error() -> None:
    with pytest.raises(AssertionError, match="take it out of known_gaps"):
        check_mixer(broken(known_gaps={"state_bytes": "an old story"}), checks=["state_bytes"])


@pytest.mark.parametrize("gaps", [{"state_byte": "misspelt"}, {"state_bytes": " "}])
def test_a_gap_needs_a_check_and_a_reason(gaps: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="known_gaps"):
        check_mixer(broken(known_gaps=gaps), checks=["batch"])


def test_an_unknown_check_is_an_error() -> None:
    with pytest.raises(ConfigError, match="padings"):
        check_mixer(Toy.Config(), checks=["padings"])


def test_a_mixer_without_state_is_held_to_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    stateless = broken(step="none", rollback="none")
    with pytest.raises(AssertionError, match="an initial state is accepted"):
        check_mixer(stateless, checks=["refusals"])
    refuse: Callable[..., BaseState] = Mixer.initial_state
    monkeypatch.setattr(Toy, "initial_state", lambda self, batch, capacity=None: refuse(self, batch))
    assert check_mixer(stateless, checks=["refusals"]) == {"refusals": "holds"}


def test_the_contract_is_found_at_the_top() -> None:
    assert seqloom.testing.check_mixer is check_mixer
    with pytest.raises(AttributeError, match="check_nothing"):
        _ = seqloom.testing.check_nothing
