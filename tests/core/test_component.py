import json
from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from seqloom.core import component
from seqloom.core.component import Component, Value, part_of
from seqloom.core.errors import ConfigError
from seqloom.mixers._base import Mixer
from seqloom.mixers.recurrent.gru import GRU
from seqloom.mixers.recurrent.lstm import LSTM


@dataclass(frozen=True, kw_only=True)
class Plan(Value):
    mixer: Mixer.Config = LSTM.Config()
    parts: tuple[Mixer.Config, ...] = ()
    pair: tuple[int, float] = (1, 0.5)
    name: str | None = None
    mode: Literal["fast", "slow"] = "fast"
    rate: float = 1.0
    layers: int = 2
    bias: bool = False
    place: Path = Path("here")
    weights: dict[str, float] | None = None
    nested: "Plan | None" = None


@pytest.fixture(autouse=True)
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan lies outside the package: let its JSON name lead back to it."""
    inside = component._class_of
    monkeypatch.setattr(
        component, "_class_of", lambda part, where: Plan if "Plan" in str(part) else inside(part, where)
    )
    monkeypatch.setitem(globals(), "Plan", Plan)


def through_json(value: Value) -> Value:
    return Plan.from_json(json.loads(json.dumps(value.to_json(), allow_nan=False)))


def test_options_build_their_owner() -> None:
    config = LSTM.Config(forget_bias=0.0)
    built = config.build(5)
    assert type(built) is LSTM
    assert (built.width, built.config) == (5, config)
    assert LSTM(5).config == LSTM.Config()
    assert LSTM.Config.owner is LSTM
    assert GRU.Config.owner is GRU


def test_options_are_frozen_hashable_and_keyword_only() -> None:
    config = LSTM.Config(hidden=3)
    with pytest.raises(FrozenInstanceError):
        config.hidden = 4
    with pytest.raises(TypeError):
        LSTM.Config(3)
    assert {config: 1}[LSTM.Config(hidden=3)] == 1
    assert replace(config, hidden=4) == LSTM.Config(hidden=4)


def test_a_part_without_options_gets_its_own_empty_ones() -> None:
    class Plain(Component):
        pass

    class Other(Component):
        pass

    assert Plain.Config is not Other.Config
    assert (Plain.Config.owner, Other.Config.owner) == (Plain, Other)
    assert Plain.Config() == Plain.Config()


def test_a_parts_json_name_is_its_shelf_and_file() -> None:
    assert part_of(LSTM.Config) == "mixers/lstm"
    assert LSTM.Config(hidden=4).to_json() == {"format": 1, "part": "mixers/lstm", "hidden": 4, "forget_bias": 1.0}


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(mixer=GRU.Config(hidden=3), parts=(LSTM.Config(), GRU.Config()), name="x", mode="slow"),
        Plan(pair=(3, 1.0), rate=2.5, layers=0, bias=True, place=Path("a/b"), weights={"a": 1.0}),
        Plan(rate=float("inf"), pair=(1, -float("inf"))),
        Plan(nested=Plan(layers=7, nested=Plan(name="deep"))),
    ],
)
def test_every_value_comes_back_from_json(plan: Plan) -> None:
    assert through_json(plan) == plan


def test_an_integer_is_read_where_a_float_is_meant() -> None:
    document = Plan().to_json() | {"rate": 3}
    assert type(Plan.from_json(document).rate) is float


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format 2 is not 1"),
        ({"format": None}, "another version"),
        ({"layer": 3}, "no field 'layer'; it has"),
        ({"layers": "3"}, r"layers cannot be '3': expected int"),
        ({"layers": True}, "layers cannot be True"),
        ({"layers": 1.5}, "layers cannot be 1.5"),
        ({"bias": 1}, "bias cannot be 1"),
        ({"rate": True}, "rate cannot be True"),
        ({"mode": "medium"}, "mode cannot be 'medium'"),
        ({"name": 3}, "name cannot be 3"),
        ({"pair": [1]}, "pair needs 2 values, not 1"),
        ({"mixer": {"part": "mixers/absent"}}, "not known here: 'mixers/absent'"),
        ({"mixer": {"part": "mixers/lstm", "hidden_width": 3}}, "mixers/lstm has no field 'hidden_width'"),
        ({"mixer": {"part": 3}}, "no readable part name"),
        ({"mixer": {"hidden": 3}}, "mixer cannot be"),
        ({"nested": {"part": "mixers/lstm"}}, "nested cannot be mixers/lstm"),
        ({"layers": {"part": "mixers/lstm"}}, "layers cannot be mixers/lstm"),
        ({"parts": [{"part": "mixers/lstm"}, None]}, "parts cannot be None"),
        ({"mixer": {"part": "core/layout.Layout"}}, "not known here"),
        ({"mixer": {"part": "os.system"}}, "not known here"),
        ({"mixer": {"part": "../core/component.Value"}}, "not known here"),
    ],
)
def test_what_cannot_be_read_faithfully_is_refused(change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Plan.from_json(Plan().to_json() | change)


def test_a_document_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be mixers/lstm: expected mixers/gru"):
        GRU.Config.from_json(LSTM.Config().to_json())


def test_a_missing_field_takes_its_default_unless_it_has_none() -> None:
    assert LSTM.Config.from_json({"format": 1, "part": "mixers/lstm"}) == LSTM.Config()


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(ConfigError, match="object has no JSON form"):
        replace(Plan(), name=object()).to_json()
