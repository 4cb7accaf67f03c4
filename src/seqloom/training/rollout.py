"""Samples of the model in training, for objectives that learn from their own output.

    y ~ decoder(model, prompt)    tokens <- prompt, y without its last    targets <- the same, one to the left
    weights <- 1 where the target was sampled, 0 where it belongs to the prompt

Made with the current weights in evaluation mode and without gradients; ``outputs["rollouts"]`` are the model's outputs
on them, with gradients. What is drawn depends on (seed, step, micro-batch, example, sample) alone.

Shapes: P prompts, S samples of each, B = P S rows (sample s of prompt p in row p S + s), T time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seqloom.core import discovery
from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.rng import generator
from seqloom.models._base import Model
from seqloom.objectives._base import Objective, RolloutSpec

Key = tuple[int | str, ...]


class Rollouts:
    """The rollouts of each micro-batch of a step, kept until they are refreshed."""

    def __init__(self, seed: int) -> None:
        """None yet."""
        self.seed = seed
        self._kept: list[Batch] = []

    def forget(self) -> None:
        """Make new ones at the next step."""
        self._kept = []

    def attach(self, batches: Sequence[Batch], model: Model, objective: Objective, step: int) -> list[Batch]:
        """Give the micro-batches of a step their rollouts, new ones every ``every`` steps.

        Rollouts that are kept belong to the examples that they were made for (``rollouts.index_B``), not to the
        batch that carries them.
        """
        if objective.rollouts is None:
            return list(batches)
        if step % objective.rollouts.every == 0 or len(self._kept) != len(batches):
            keys: list[Key] = [("rollout", step, micro) for micro in range(len(batches))]
            self._kept = [self.fresh(b, model, objective, key) for b, key in zip(batches, keys, strict=True)]
        return [replace(batch, rollouts=kept) for batch, kept in zip(batches, self._kept, strict=True)]

    def fresh(self, batch: Batch, model: Model, objective: Objective, key: Key) -> Batch:
        """New samples for this batch, drawn by (seed, key)."""
        if objective.rollouts is None:
            raise ConfigError(f"{type(objective).__name__} asks for no rollouts")
        seed = int(generator(self.seed, *key).integers(1 << 62))
        return rollout(model, objective.prompts(batch), objective.rollouts, seed)

    def tensors(self) -> dict[str, Tensor]:
        """What is kept, for a checkpoint."""
        return {
            f"{micro}.{name}": value for micro, kept in enumerate(self._kept) for name, value in _pack(kept).items()
        }

    def load(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Take back what ``tensors`` gave."""
        parts: dict[int, dict[str, Tensor]] = {}
        for label, value in tensors.items():
            micro, _, name = label.partition(".")
            parts.setdefault(int(micro), {})[name] = value
        self._kept = [_unpack(parts[micro]).to(device) for micro in sorted(parts)]


@torch.no_grad()
def rollout(model: Model, prompts: Batch, spec: RolloutSpec, seed: int) -> Batch:
    """Continue each prompt ``spec.samples`` times with the current weights.

    Raises:
        ConfigError: the model cannot step, or no decoder has this name.
    """
    row_B = torch.arange(len(prompts), device=prompts.tokens.device).repeat_interleave(spec.samples)
    again_B = torch.arange(len(row_B), device=row_B.device) % spec.samples
    asked = prompts.select(row_B)
    index_B = row_B if asked.index_B is None else asked.index_B
    training = model.training
    model.eval()
    try:
        decoder = discovery.get("decoding", spec.decoder)()  # type: ignore[operator]
        keyed = replace(asked, index_B=index_B * spec.samples + again_B)
        written = decoder.decode(model, keyed, limit=spec.limit, seed=seed)
    finally:
        model.train(training)
    sampled_BL = torch.arange(written.tokens_BL.shape[1], device=row_B.device) < written.length_B[:, None]
    return _shifted(replace(asked, index_B=index_B), written.tokens_BL, sampled_BL)


def _shifted(asked: Batch, tokens_BL: Tensor, sampled_BL: Tensor) -> Batch:
    """Prompts and what was sampled after them as inputs and targets, padded to the right."""
    given = asked.layout.valid_BT(asked.tokens.shape[1])
    given_BT = torch.ones_like(asked.tokens, dtype=torch.bool) if given is None else given
    tokens_BT, held_BT = _to_the_left(torch.cat([asked.tokens, tokens_BL], 1), torch.cat([given_BT, sampled_BL], 1))
    column_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    weights_BT = (held_BT & (column_T >= given_BT.sum(1, keepdim=True)))[:, 1:].float()
    lengths_B = held_BT.sum(1) - 1
    ragged = bool((lengths_B != tokens_BT.shape[1] - 1).any())
    return Batch(
        tokens_BT=tokens_BT[:, :-1].contiguous(),
        targets=tokens_BT[:, 1:].contiguous(),
        weights=weights_BT,
        layout=Layout(lengths_B=lengths_B if ragged else None),
        context=asked.context,
        index_B=asked.index_B,
    )


def _to_the_left(tokens_BT: Tensor, held_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Close the gaps between the columns that hold something; pads (0) behind them, no column too many."""
    order_BT = torch.argsort(~held_BT, dim=1, stable=True)
    width = max(int(held_BT.sum(1).max()), 1) if len(held_BT) else 1
    held_BT = held_BT.gather(1, order_BT)[:, :width]
    return tokens_BT.gather(1, order_BT)[:, :width].masked_fill(~held_BT, 0), held_BT


def _pack(batch: Batch) -> dict[str, Tensor]:
    """Every tensor by its path, and the side of the padding."""
    packed = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
    packed |= {f"layout.{name}": value for name, value in vars(batch.layout).items() if isinstance(value, Tensor)}
    packed["left"] = torch.tensor(batch.layout.side == "left")
    if batch.context is not None:
        packed |= {f"context.{name}": value for name, value in _pack(batch.context).items()}
    return packed


def _unpack(packed: Mapping[str, Tensor]) -> Batch:
    groups: dict[str, dict[str, Any]] = {"": {}, "layout": {}, "context": {}}
    for label, value in packed.items():
        group, dot, name = label.partition(".")
        groups[group if dot else ""][name if dot else label] = value
    layout = Layout(side="left" if bool(groups[""].pop("left")) else "right", **groups["layout"])
    context = _unpack(groups["context"]) if groups["context"] else None
    return Batch(**groups[""], layout=layout, context=context)
