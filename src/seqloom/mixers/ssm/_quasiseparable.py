"""A dense transition that is the inverse of a tridiagonal matrix: discretised, applied and solved in O(N).

    A = -P_l (T^{-1} + diag c) P_r        T tridiagonal, P_l and P_r diagonal

    legs  T = the backward difference (1 on the diagonal, -1 below)        c_n = -n / (2n+1)    P_l = P_r = sqrt(2n+1)
    legt  T = half the central difference (+-1/2 beside the diagonal,      c = 0                P_l = P_r = sqrt(2n+1)
          0 on it but 1/2 at both ends)

Every generalised bilinear rule is one tridiagonal solve. With d = a dt, E = P_l P_r and v the solution of

    [T (I + d c E) + d E] v = (I + T c) P_r x,      P_l v = -A (I - d A)^{-1} x ,

    A-bar x = (I - d A)^{-1} (I + (dt - d) A) x = x - dt P_l v        B-bar = dt (I - d A)^{-1} B = dt (B - d P_l v(B))

and nothing is divided by P_l, P_r or c, which may pass through zero when they are learned.
Shapes: D channels, G channels of the structure (1 where they share it), N state size, Q = N - 1, R columns.
Source: Gu, Johnson, Goel, Saab, Dao, Rudra, Ré, "Combining recurrent, convolutional, and continuous-time models with
linear state-space layers", 2021, arXiv:2110.13985, section 4.2 and appendix D; the single solve is ours.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels.tridiagonal import tridiagonal

Inverse = Literal["legs", "legt"]
FIELDS = ("lower", "diagonal", "upper", "offset", "left", "right", "input")


class Structure(NamedTuple):
    """A and B in continuous time."""

    lower_GQ: Tensor
    diagonal_GN: Tensor
    upper_GQ: Tensor
    offset_GN: Tensor
    """The diagonal c."""
    left_GN: Tensor
    """P_l."""
    right_GN: Tensor
    """P_r."""
    input_GN: Tensor
    """B."""

    def dense(self) -> Tensor:
        """A (G, N, N), for whoever wants to see it."""
        one_GNN = torch.eye(self.left_GN.shape[1], dtype=self.left_GN.dtype).expand(len(self.left_GN), -1, -1)
        inverse_GNN = tridiagonal(self.lower_GQ, self.diagonal_GN, self.upper_GQ, one_GNN)
        return -self.left_GN[..., None] * (inverse_GNN + torch.diag_embed(self.offset_GN)) * self.right_GN[:, None]


class Discrete(NamedTuple):
    """The same at steps dt by the generalised bilinear rule, one system a channel."""

    structure: Structure
    step_D: Tensor
    alpha: float

    def advance(self, x_DNR: Tensor) -> Tensor:
        """A-bar x."""
        return x_DNR - self.step_D[:, None, None] * self._slope(x_DNR)

    def input(self) -> Tensor:
        """B-bar (D, N)."""
        B_DN1 = self.structure.input_GN.expand(len(self.step_D), -1)[..., None]
        step_D11 = self.step_D[:, None, None]
        return (step_D11 * (B_DN1 - self.alpha * step_D11 * self._slope(B_DN1)))[..., 0]

    def dense(self) -> Tensor:
        """A-bar (D, N, N): N columns at O(N) each."""
        D, N = len(self.step_D), self.structure.left_GN.shape[1]
        one_DNN = torch.eye(N, dtype=self.step_D.dtype, device=self.step_D.device).expand(D, -1, -1)
        return self.advance(one_DNN)

    def _slope(self, x_DNR: Tensor) -> Tensor:
        """-A (I - a dt A)^{-1} x."""
        lower_GQ, diagonal_GN, upper_GQ, c_GN, left_GN, right_GN, _ = self.structure
        damping_DN = self.alpha * self.step_D[:, None] * left_GN * right_GN
        scale_DN = 1 + damping_DN * c_GN
        v_DNR = tridiagonal(
            lower_GQ * scale_DN[:, :-1],
            diagonal_GN * scale_DN + damping_DN,
            upper_GQ * scale_DN[:, 1:],
            self._right(x_DNR),
        )
        return left_GN[..., None] * v_DNR

    def _right(self, x_DNR: Tensor) -> Tensor:
        """(I + T c) P_r x."""
        lower_GQ, diagonal_GN, upper_GQ, c_GN, _, right_GN, _ = self.structure
        x_DNR = right_GN[..., None] * x_DNR
        z_DNR = c_GN[..., None] * x_DNR
        below_DQR, above_DQR = lower_GQ[..., None] * z_DNR[:, :-1], upper_GQ[..., None] * z_DNR[:, 1:]
        edge_D1R = torch.zeros_like(z_DNR[:, :1])
        beside_DNR = torch.cat([edge_D1R, below_DQR], 1) + torch.cat([above_DQR, edge_D1R], 1)
        return x_DNR + diagonal_GN[..., None] * z_DNR + beside_DNR


def structure(kind: Inverse, size: int) -> Structure:
    """HiPPO's A and B in this form, float64, G = 1; the sliding window has length 1."""
    if size < 2:
        raise ConfigError(f"state must be at least 2, not {size}")
    n_1N = torch.arange(size, dtype=torch.float64)[None]
    root_1N, beside_1Q = torch.sqrt(2 * n_1N + 1), torch.ones(1, size - 1, dtype=torch.float64)
    if kind == "legs":
        diagonals, offset_1N = (-beside_1Q, torch.ones_like(n_1N), 0 * beside_1Q), -n_1N / (2 * n_1N + 1)
    elif kind == "legt":
        ends_1N = 0.5 * ((n_1N == 0).double() + (n_1N == size - 1).double())
        diagonals, offset_1N = (-0.5 * beside_1Q, ends_1N, 0.5 * beside_1Q), torch.zeros_like(n_1N)
    else:
        raise ConfigError(f"there is no inverse of a tridiagonal matrix for {kind!r}; there are legs and legt")
    return Structure(*diagonals, offset_1N, root_1N, root_1N.clone(), root_1N.clone())


def longest_step(kind: Inverse, size: int, alpha: float) -> float:
    """The longest step whose rule is stable for HiPPO's A: infinity from the bilinear rule on.

    |1 + (1 - a) z| <= |1 - a z| at z = dt L holds where 2 Re z + (1 - 2 a) |z|^2 <= 0, L an eigenvalue.
    """
    if alpha >= 0.5:
        return math.inf
    if kind == "legs":
        return 2 / (size * (1 - 2 * alpha))  # L = -(n+1)
    eigenvalue_N = torch.linalg.eigvals(structure(kind, size).dense()[0])
    return float((-2 * eigenvalue_N.real / eigenvalue_N.abs().square()).min()) / (1 - 2 * alpha)
