"""What the data dictates to a model: the sizes of its ends."""

from dataclasses import dataclass

from seqloom.core.component import Value


@dataclass(frozen=True, kw_only=True)
class Sizes(Value):
    """Surroundings of every model: ``CausalLM(sizes, config)``."""

    vocabulary: int = 0
    """Ids, specials included; 0 = no symbols come in."""
    classes: int = 0
    """Classes to tell apart; 0 = no classification head."""
    channels: int = 0
    """Real-valued input channels."""
    values: int = 0
    """The first so many of these channels are predicted; 0 = symbols are."""
    targets: int = 0
    """Numbers that are told after every event instead; 0 = none."""
