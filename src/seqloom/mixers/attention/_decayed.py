"""What mixers with a decaying matrix of keys and values share: the sum itself, and the convolution before it.

    S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T      y_t = S_t^T q_t      u~_t = silu(sum_k w_k u_{t-k} + b)

Whole sequences and chunks go to the kernels. One more position of every row is the two lines above as they stand: a
chunk of one would cost more in preparation than in work.

Shapes: B batch, T time, H value heads, G groups of query and key heads, K key width, V value width, C = 1 or K decays a
head, E channels, W taps (for the state: the W - 1 inputs before).
Source: Yang et al., "Gated linear attention transformers with hardware-efficient training", 2023, arXiv:2312.06635,
section 2; Dao and Gu, "Transformers are SSMs", 2024, arXiv:2405.21060, sections 3 and 7.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.kernels.decay_attention import decay_attention
from seqloom.kernels.short_conv import short_conv


def decayed(
    q_BTGK: Tensor, k_BTGK: Tensor, v_BTHV: Tensor, log_decay_BTHC: Tensor, s_BHKV: Tensor | None, layout: Layout
) -> tuple[Tensor, Tensor]:
    """Read the matrices by the queries; return the outputs and the matrices after the last column.

    The caller lets pads hold (k or v = 0, log decay = 0). Without ``s_BHKV`` every row starts from nothing.
    """
    (B, T, H, V), K = v_BTHV.shape, k_BTGK.shape[3]
    if s_BHKV is not None and T == 1 and layout.plain:
        return _one_more(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV)
    if s_BHKV is None:
        s_BHKV = v_BTHV.new_zeros(B, H, K, V, dtype=torch.promote_types(v_BTHV.dtype, torch.float32))
    return decay_attention(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV, layout.segments_BT())


def _one_more(
    q_B1GK: Tensor, k_B1GK: Tensor, v_B1HV: Tensor, log_decay_B1HC: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    G, H, wide = k_B1GK.shape[2], v_B1HV.shape[2], s_BHKV.dtype
    s_BGRKV = s_BHKV.unflatten(1, (G, H // G))
    decay_BGRC1 = log_decay_B1HC[:, 0].to(wide).exp().unflatten(1, (G, H // G))[..., None]
    k_BG1K1, v_BGR1V = (
        k_B1GK[:, 0, :, None, :, None].to(wide),
        v_B1HV[:, 0].to(wide).unflatten(1, (G, -1))[:, :, :, None],
    )
    s_BGRKV = torch.addcmul(s_BGRKV * decay_BGRC1, k_BG1K1, v_BGR1V)
    y_BGR1V = q_B1GK[:, 0, :, None, None].to(wide) @ s_BGRKV
    return y_BGR1V.flatten(1, 2).transpose(1, 2).to(v_B1HV.dtype), s_BGRKV.flatten(1, 2)


class Taps(nn.Module):
    """Convolution of every channel over a few positions, then SiLU; causal, or centred on the position."""

    def __init__(self, channels: int, taps: int, *, bias: bool = True, centred: bool = False) -> None:
        """Weights are uniform in +- taps^-1/2, as torch draws those of a depthwise convolution; biases are zero."""
        super().__init__()
        if taps < 1 or (centred and taps % 2 == 0):
            raise ConfigError(f"conv must be {'odd' if centred else 'at least 1'}, not {taps}")
        self.ahead = taps // 2 if centred else 0
        self.weight = nn.Parameter(torch.empty(channels, taps).uniform_(-(taps**-0.5), taps**-0.5))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, u_BTE: Tensor, before_BWE: Tensor | None, layout: Layout) -> tuple[Tensor, Tensor]:
        """Convolve; return also the last W - 1 inputs. Pads are no inputs, come out as 0, and no bias leaks there."""
        with torch.autocast(u_BTE.device.type, enabled=False):
            if before_BWE is not None and u_BTE.shape[1] == 1 and layout.plain:
                return self._one_more(u_BTE, before_BWE)
            weight_EW = self.weight.to(u_BTE.dtype)
            bias_E = None if self.bias is None else self.bias.to(u_BTE.dtype)
            segments_BT, lengths_B = layout.segments_BT(), layout.lengths_B
            return short_conv(u_BTE, weight_EW, bias_E, before_BWE, segments_BT, lengths_B, "silu", self.ahead)

    def _one_more(self, u_B1E: Tensor, before_BWE: Tensor) -> tuple[Tensor, Tensor]:
        window_BWE = torch.cat([before_BWE, u_B1E.to(before_BWE.dtype)], 1)
        z_B1E = (window_BWE * self.weight.to(window_BWE.dtype).T).sum(1, keepdim=True)
        z_B1E = z_B1E if self.bias is None else z_B1E + self.bias.to(z_B1E.dtype)
        return silu(z_B1E).to(u_B1E.dtype), window_BWE[:, 1:]
