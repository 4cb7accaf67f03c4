"""A long convolution in bounded memory, and the state of a finite kernel.

Shapes: as in the kernel's ``__init__``.
Source: overlap-save, Oppenheim and Schafer, "Discrete-Time Signal Processing", section 8.7.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.core.errors import ConfigError
from seqloom.kernels.long_conv import long_conv


def chunk_long_conv(
    u_BTD: Tensor,
    k_DL: Tensor,
    chunk: int,
    back_DM: Tensor | None = None,
    skip_D: Tensor | None = None,
    before_BSD: Tensor | None = None,
) -> Tensor:
    """``long_conv`` by overlapping chunks of the output: memory for one transform of chunk + L + M, whatever T.

    Worth it where the kernel is much shorter than the sequence: the transforms cost T log(chunk + L + M) in all at
    chunk >= L + M, but T / chunk transforms of L where the kernel is longer than the chunk.
    """
    if chunk < 1:
        raise ConfigError(f"chunk must be at least 1, not {chunk}")
    T = u_BTD.shape[1]
    reach, ahead = k_DL.shape[1] - 1, 0 if back_DM is None else back_DM.shape[1]
    pieces = []
    for start in range(0, T, chunk):
        stop = min(start + chunk, T)
        first = max(start - reach, 0)
        past_BSD = u_BTD[:, first:start]
        if before_BSD is not None and reach > start:
            past_BSD = torch.cat([history(before_BSD, None, reach - start), past_BSD], 1)
        seen_BTD = u_BTD[:, start : min(stop + ahead, T)]
        pieces.append(long_conv(seen_BTD, k_DL, back_DM, skip_D, past_BSD)[:, : stop - start])
    return torch.cat(pieces, 1) if pieces else u_BTD.clone()


def history(u_BTD: Tensor, before_BSD: Tensor | None, size: int, lengths_B: Tensor | None = None) -> Tensor:
    """The last ``size`` inputs so far (B, size, D), zeros where there were fewer: the state of a finite kernel.

    ``lengths_B`` are the valid columns of rows padded to the right. Keep ``size = L - 1`` and hand it to the next
    call as ``before_BSD``.
    """
    past = () if before_BSD is None else (before_BSD.to(u_BTD.dtype),)
    all_BED = torch.cat([*past, u_BTD], 1)
    missing = max(size - (0 if before_BSD is None else before_BSD.shape[1]), 0)
    all_BED = pad(all_BED, (0, 0, missing, 0))
    if lengths_B is None:
        return all_BED[:, all_BED.shape[1] - size :]
    first_B = lengths_B + (all_BED.shape[1] - u_BTD.shape[1] - size)
    column_BS = first_B[:, None] + torch.arange(size, device=first_B.device)
    return all_BED[torch.arange(len(all_BED), device=first_B.device)[:, None], column_BS]
