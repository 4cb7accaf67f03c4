"""What a run must remember to go on as if nothing had happened: weights, moments, its place, its rollouts.

Randomness is keyed by (seed, step), so no generator's state is among it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqloom.core.errors import CheckpointError
from seqloom.training import checkpoint

if TYPE_CHECKING:
    from seqloom.training.loop import Loop

PLACE = ("step", "steps", "epoch", "cursor", "tokens", "seconds", "stale", "memory")


def save(loop: "Loop", path: Path) -> None:
    """Write the checkpoint that ``restore`` continues from."""
    parts = {
        "model": loop.model.state_dict(),
        "best": loop.best,
        "optimiser": moments(loop.optimiser, loop.model),
        "rollouts": loop.rollouts.tensors(),
    }
    tensors = {f"{part}.{name}": value for part, named in parts.items() for name, value in named.items()}
    meta = {name: getattr(loop, name) for name in PLACE}
    best = None if loop.best_loss == float("inf") else loop.best_loss
    meta |= {"stage": loop.stage, "best_loss": best, "run": loop.recipe.to_json()}
    checkpoint.save(path, tensors, meta)


def restore(loop: "Loop", path: Path) -> None:
    """Continue from a checkpoint; CheckpointError where it belongs to another run."""
    tensors, meta = checkpoint.load(path)
    mine = loop.recipe.to_json()
    theirs = meta.get("run")
    if theirs != mine:
        theirs = theirs if isinstance(theirs, dict) else {}
        different = [key for key, value in mine.items() if theirs.get(key) != value]
        raise CheckpointError(f"{path} belongs to another run: {', '.join(different)} differ")
    try:
        _put_back(loop, tensors, meta)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit this run: {error}. Begin anew in another folder") from error


def _put_back(loop: "Loop", tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    for name in PLACE:
        setattr(loop, name, meta[name])
    loop.best_loss = float("inf") if meta["best_loss"] is None else meta["best_loss"]
    loop.model.load_state_dict(_under(tensors, "model."))
    loop.best = {name: value.to(loop.device) for name, value in _under(tensors, "best.").items()}
    if meta["stage"] >= 0:
        loop.enter(meta["stage"])  # the stage that was left, so that the next step enters the next one as it must
    set_moments(loop.optimiser, loop.model, _under(tensors, "optimiser."))
    loop.rollouts.load(_under(tensors, "rollouts."), loop.device)


def moments(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{key}:{names[id(parameter)]}": value
        for parameter, entries in optimiser.state.items()
        for key, value in entries.items()
    }


def set_moments(optimiser: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put moments back, those of frozen parameters left out."""
    parameters = dict(model.named_parameters())
    for label, value in tensors.items():
        key, _, name = label.partition(":")
        if parameters[name].requires_grad:
            counts = key == "step" and not optimiser.defaults.get("fused")  # only a fused one counts on the device
            device = torch.device("cpu") if counts else parameters[name].device
            optimiser.state[parameters[name]][key] = value.to(device, copy=True)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
