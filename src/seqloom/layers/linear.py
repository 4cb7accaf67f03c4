"""A linear map that is fast for a few rows too.

    y = W x + b

Whole sequences go to torch's matrix product; single steps without gradients on a CPU go to a loop that reads each
weight once (kernels/narrow_linear).

Shapes: x (..., K), y (..., N), R rows.
"""

from torch import Tensor, nn
from torch.nn.functional import linear

from seqloom.kernels.narrow_linear import MOST, narrow_linear_now


class Linear(nn.Linear):
    """``torch.nn.Linear`` in everything but the time of a step."""

    def forward(self, input: Tensor) -> Tensor:
        """Map the last axis."""
        if input.numel() <= MOST * self.in_features:
            y_RN = narrow_linear_now(input.reshape(-1, self.in_features), self.weight, self.bias)
            if y_RN is not None:
                return y_RN.view(*input.shape[:-1], self.out_features)
        return linear(input, self.weight, self.bias)
