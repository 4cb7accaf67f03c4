"""What an engine holds: the weights of a network, or the arrays of a classical model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqloom.core.errors import CheckpointError


class HeldNetwork:
    """Parameters and tensors of a ``torch.nn.Module`` called ``model``."""

    model: Any

    @property
    def parameters(self) -> int:
        """Learnt numbers."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """All that was learnt."""
        return dict(self.model.state_dict())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``tensors`` gave; CheckpointError where it does not fit."""
        try:
            self.model.load_state_dict(dict(tensors))
        except RuntimeError as error:
            first = str(error).splitlines()[1:2] or [str(error)]
            raise CheckpointError(f"the weights do not fit the model of config.json: {first[0].strip()}") from error


class HeldCounts:
    """Parameters and arrays of a classical model called ``model``."""

    model: Any

    @property
    def parameters(self) -> int:
        """Learnt numbers."""
        return self.model.held_parameters

    def tensors(self) -> dict[str, Tensor]:
        """All that was learnt."""
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in self.model.arrays().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``tensors`` gave; CheckpointError where it does not fit."""
        self.model.load({name: tensor.numpy() for name, tensor in tensors.items()})
