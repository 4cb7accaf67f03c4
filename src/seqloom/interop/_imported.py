"""A model from elsewhere and the dictionary between its ids and ours.

Shapes: V our vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from seqloom.core.component import Value
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.core.specials import NAMES, SPECIALS
from seqloom.models.causal_lm import CausalLM
from seqloom.training import checkpoint

FILE = "imported.safetensors"


@dataclass(frozen=True)
class Imported:
    """The specials have our ids; ordinary symbols follow in the order of their foreign ids."""

    model: CausalLM
    foreign_V: tuple[int, ...]
    """The foreign id of each of ours; -1 where the foreign vocabulary has none."""
    ends: tuple[int, ...] = (SPECIALS.eos,)
    """Our ids of all that ends a text, eos first: a chat model has several. ``PlainGrammar.Config(end=ends)``."""

    def encode(self, ids: Sequence[int]) -> list[int]:
        """Our ids for those of the model's own tokenizer.

        Where one foreign id both begins and ends a text (GPT-2), it is bos at the first place and eos elsewhere.
        """
        ours = {foreign: own for own, foreign in reversed(list(enumerate(self.foreign_V))) if foreign >= 0}
        shared = self.foreign_V[SPECIALS.bos] == self.foreign_V[SPECIALS.eos] >= 0
        if shared:
            ours[self.foreign_V[SPECIALS.eos]] = SPECIALS.eos
        strange = next((foreign for foreign in ids if foreign not in ours), None)
        if strange is not None:
            raise ConfigError(f"the model has no id {strange}: do the ids come from its own tokenizer?")
        own = [ours[foreign] for foreign in ids]
        return [SPECIALS.bos, *own[1:]] if shared and own[:1] == [SPECIALS.eos] else own

    def decode(self, ids: Sequence[int]) -> list[int]:
        """Foreign ids for ours; specials that the foreign vocabulary lacks are left out."""
        return [self.foreign_V[own] for own in ids if self.foreign_V[own] >= 0]

    def save(self, folder: str | Path) -> Path:
        """Write the model and its dictionary in our own form: one file, whole or not at all."""
        path = Path(folder) / FILE
        meta = {"model": self.model.config.to_json(), "foreign": list(self.foreign_V), "ends": list(self.ends)}
        shared = {"head.weight"} if self.model.config.tie else set()
        tensors = {name: value for name, value in self.model.state_dict().items() if name not in shared}
        checkpoint.save(path, tensors, meta)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> "Imported":
        """Read what ``save`` wrote. CheckpointError says what is wrong with it."""
        path = Path(folder) / FILE
        tensors, meta = checkpoint.load(path)
        try:
            config = Value.from_json(meta["model"])
            foreign_V, ends = tuple(meta["foreign"]), tuple(meta["ends"])
        except KeyError as error:
            raise CheckpointError(f"{path} lacks {error.args[0]!r}: it holds no imported model") from error
        if not isinstance(config, CausalLM.Config):
            raise CheckpointError(f"{path} holds a {type(config).__qualname__}, not a causal language model")
        return cls(built(config, tensors, len(foreign_V)), foreign_V, ends)

    @property
    def note(self) -> str:
        """One line on how the ids were mapped."""
        named = [
            f"{name} = {self.foreign_V[own]}" if self.foreign_V[own] >= 0 else f"{name} = none"
            for own, name in enumerate(NAMES)
        ]
        also = ", ".join(str(self.foreign_V[own]) for own in self.ends[1:])
        ends = f"; {also} also end a text" if also else ""
        return f"foreign ids of the specials: {', '.join(named)}; ordinary symbols follow from {SPECIALS.count}{ends}"


def built(config: CausalLM.Config, tensors: dict[str, torch.Tensor], size: int) -> CausalLM:
    """A model with these weights, ready to be asked; no time is spent on initial values."""
    with torch.device("meta"):
        model = CausalLM(Sizes(vocabulary=size), config)
    if config.tie:
        tensors["head.weight"] = tensors["input.embedding.weight"]
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"the weights do not fit the config: {error}") from error
    model.tie()
    return model.eval()
