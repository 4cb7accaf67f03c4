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

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis."""
        weight, bias = self.weight, self.bias
        if x.numel() <= MOST * self.in_features:
            y_RN = narrow_linear_now(x.reshape(-1, self.in_features), weight, bias)
            if y_RN is not None:
                return y_RN.view(*x.shape[:-1], self.out_features)
        return linear(x, weight, bias)
