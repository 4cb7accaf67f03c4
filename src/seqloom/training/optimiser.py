"""AdamW with the groups that mixers ask for.

A mixer's ``param_groups`` caps the learning rate and sets the weight decay of its step sizes, decays and kernel
parameters; of everything else, matrices decay and vectors (norms, biases) and embeddings do not.

Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, arXiv:1711.05101.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from seqloom.core.component import Value


@dataclass(frozen=True, kw_only=True)
class AdamW(Value):
    """Options of the optimiser."""

    lr: float = 3e-3
    """Peak learning rate."""
    weight_decay: float = 0.05
    """Decoupled decay of matrices."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Averaging of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    clip: float = 1.0
    """Largest norm of the whole gradient; 0 = no clipping."""

    def build(self, model: nn.Module) -> torch.optim.AdamW:
        """The optimiser of a model; each group keeps its own peak as ``peak``."""
        groups = [
            {"params": params, "peak": self.lr if lr is None else min(lr, self.lr), "weight_decay": decay}
            for (lr, decay), params in self._groups(model).items()
        ]
        for group in groups:
            group["lr"] = group["peak"]
        fused = all(p.device.type in ("cpu", "cuda") for p in model.parameters())
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=fused)

    def _groups(self, model: nn.Module) -> dict[tuple[float | None, float], list[nn.Parameter]]:
        """Parameters by (cap of the learning rate, weight decay), in a fixed order, each once."""
        own = dict(_own_settings(model))
        groups: dict[tuple[float | None, float], list[nn.Parameter]] = {}
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        for parameter in model.parameters():
            if not parameter.requires_grad:
                continue
            decays = parameter.ndim > 1 and id(parameter) not in tables
            key = own.get(id(parameter), (None, self.weight_decay if decays else 0.0))
            groups.setdefault(key, []).append(parameter)
        return groups


def _own_settings(model: nn.Module) -> Iterator[tuple[int, tuple[float | None, float]]]:
    for module in model.modules():
        ask = getattr(module, "param_groups", None)
        for group in ask() if callable(ask) else []:
            for name in group.names:
                yield id(module.get_parameter(name)), (group.lr, group.weight_decay)
