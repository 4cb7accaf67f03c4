import pytest

from seqloom.mixers._base import Mixer
from seqloom.testing.mixers import CHECKS, check_mixer, options

GRID = list(options())
DEFAULTS = [pair for pair in GRID if pair[0].rpartition("-")[0] == ""]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("config", [pytest.param(config, id=label) for label, config in DEFAULTS])
def test_default_options_keep_the_contract(config: Mixer.Config, check: str) -> None:
    check_mixer(config, checks=[check], full=True)


@pytest.mark.slow
@pytest.mark.parametrize("config", [pytest.param(config, id=label) for label, config in GRID])
def test_every_option_keeps_the_contract(config: Mixer.Config) -> None:
    check_mixer(config, full=True)


@pytest.mark.gpu
@pytest.mark.parametrize("config", [pytest.param(config, id=label) for label, config in GRID])
def test_contract_holds_on_an_accelerator(config: Mixer.Config) -> None:
    check_mixer(config, device="cuda")
