import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs


def test_outputs_are_computed_at_the_first_look_and_once() -> None:
    calls = []

    def head() -> torch.Tensor:
        calls.append(1)
        return torch.ones(2)

    outputs = Outputs({"logits": head, "hidden": (torch.zeros(1),)})
    assert list(outputs) == ["logits", "hidden"]
    assert len(outputs) == 2
    assert "logits" in outputs
    assert calls == []
    assert outputs.logits is outputs["logits"]
    assert calls == [1]
    assert outputs.hidden[0].shape == (1,)


def test_an_absent_output_is_named_beside_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="'attention'; it has logits"):
        Outputs({"logits": torch.ones(1)})["attention"]
    assert "attention" not in Outputs({"logits": torch.ones(1)})
    assert Outputs({"logits": torch.ones(1)}).get("attention", 3) == 3
    assert Outputs({"logits": lambda: torch.ones(1)}).get("logits").shape == (1,)


def test_the_callers_mapping_is_not_changed() -> None:
    entries = {"logits": lambda: torch.ones(1)}
    assert Outputs(entries).logits.shape == (1,)
    assert callable(entries["logits"])
    assert len(Outputs()) == 0


def test_outputs_that_are_added_share_what_was_computed() -> None:
    calls = []
    outputs = Outputs({"pooled": lambda: calls.append("pooled") or 2})
    both = outputs.also({"logits": lambda: outputs["pooled"] + 1})
    assert (both["pooled"], both["logits"], both["pooled"]) == (2, 3, 2)
    assert calls == ["pooled"]
