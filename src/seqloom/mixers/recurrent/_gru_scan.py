"""The GRU's recurrence on a CPU with its own backward pass, for torch has no fused one there.

    r, z = sigmoid(g_rz + U_rz h)    m = U_n h + s    n = tanh(g_n + r m)    h' = n + z (h - n)

The input's gates come in the order n, r, z: then the gradients of g_n, r, z and m lie side by side, the first three
are those of the input's gates, the last three those of the products with U, and nothing has to be copied.

With e the gradient of h', the gates' gradients are e times coefficients that do not depend on e:

    z: (h - n) z (1 - z)    g_n: c = (1 - z)(1 - n^2)    m: c r    r: c m r (1 - r)

so all coefficients are made at once, and a step backwards is one product with U and two elementwise operations.

Shapes: B batch, T time, H hidden, G = 3H gates.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Scan(torch.autograd.Function):
    """``Scan.apply(gates_TBG, h_BH, weight_GH, reset_H)`` -> every state (T, B, H).

    The gates are in the order n, r, z, the weight's rows in the order r, z, n.
    """

    @staticmethod
    def forward(ctx: Any, gates_TBG: Tensor, h_BH: Tensor, weight_GH: Tensor, reset_H: Tensor) -> Tensor:
        """Step by step, into buffers made once."""
        T, B, H = gates_TBG.shape[0], *h_BH.shape
        bias_G = torch.cat([reset_H.new_zeros(2 * H), reset_H])
        states_SBH, n_TBH, m_TBH = (gates_TBG.new_empty(length, B, H) for length in (T + 1, T, T))
        rz_TBK = gates_TBG.new_empty(T, B, 2 * H)
        weight_HG = weight_GH.t()
        before_BH = states_SBH[0].copy_(h_BH)
        steps = (x.unbind(0) for x in (gates_TBG, states_SBH[1:], n_TBH, m_TBH, rz_TBK))
        for gates_BG, after_BH, n_BH, m_BH, rz_BK in zip(*steps, strict=True):
            products_BG = torch.addmm(bias_G, before_BH, weight_HG)
            torch.add(gates_BG[:, H:], products_BG[:, : 2 * H], out=rz_BK).sigmoid_()
            m_BH.copy_(products_BG[:, 2 * H :])
            torch.addcmul(gates_BG[:, :H], rz_BK[:, :H], m_BH, out=n_BH).tanh_()
            before_BH = torch.lerp(n_BH, before_BH, rz_BK[:, H:], out=after_BH)
        ctx.save_for_backward(weight_GH, states_SBH, n_TBH, m_TBH, rz_TBK)
        return states_SBH[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:  # type: ignore[bad-override]  (torch leaves it untyped)
        """Coefficients of all steps, the recurrence backwards, then the weight's gradient in one product."""
        (dy_TBH,) = grads
        weight_GH, states_SBH, n_TBH, m_TBH, rz_TBK = ctx.saved_tensors
        T, B, H = n_TBH.shape
        r_TBH, z_TBH = rz_TBK.chunk(2, 2)
        slopes_TB4H = n_TBH.new_empty(T, B, 4, H)
        dn_TBH, dr_TBH, dz_TBH, dm_TBH = slopes_TB4H.unbind(2)
        rest_TBH = 1 - z_TBH
        torch.mul(n_TBH, n_TBH, out=dn_TBH).neg_().add_(1).mul_(rest_TBH)
        torch.mul(dn_TBH, r_TBH, out=dm_TBH)
        torch.sub(1, r_TBH, out=dr_TBH).mul_(m_TBH).mul_(dm_TBH)
        torch.sub(states_SBH[:-1], n_TBH, out=dz_TBH).mul_(rest_TBH).mul_(z_TBH)
        e_BH = torch.zeros_like(states_SBH[0])
        steps = (x.unbind(0) for x in (slopes_TB4H, z_TBH, dy_TBH))
        for slopes_B4H, z_BH, dy_BH in reversed(list(zip(*steps, strict=True))):
            e_BH = e_BH + dy_BH
            slopes_B4H.mul_(e_BH[:, None])
            e_BH = torch.addmm(e_BH * z_BH, slopes_B4H.view(B, 4 * H)[:, H:], weight_GH)
        slopes_N4 = slopes_TB4H.view(T * B, 4 * H)
        dweight_GH = slopes_N4[:, H:].t() @ states_SBH[:-1].view(T * B, H)
        return slopes_TB4H.view(T, B, 4 * H)[:, :, : 3 * H], e_BH, dweight_GH, slopes_N4[:, 3 * H :].sum(0)
