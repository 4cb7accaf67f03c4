"""Random numbers that depend on what they are for, not on when they are drawn.

    stream = Philox4x64(key = BLAKE2b-128(seed, *key))                  one generator per (seed, epoch, index)
    word   = Philox4x32-10(counter = (column, step, row), key = BLAKE2b-64(seed))    one number per row, step and column

A worker, a batch order or a batch size therefore changes nothing, and nothing has to be stored to resume.

Shapes: B rows, V columns (for sampling: the vocabulary), N counters.
Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011, section 3.3 (Philox).
"""

import hashlib
import operator
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqloom.core.errors import CheckpointError, ConfigError

Word = int | str
Generators = Mapping[str, np.random.Generator | torch.Generator]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # the constants of Philox4x32, from the paper's reference code
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_BLOCK = 1 << 13  # counters at a time: the working set stays in the second-level cache


def generator(seed: int, *key: Word) -> np.random.Generator:
    """Return the numpy generator of (seed, *key), the same on every platform and in every process.

    Examples:
        >>> int(generator(0, "corrupt", 3, 17).integers(100))
        18
    """
    return np.random.Generator(np.random.Philox(key=_digest(16, seed, *key)))


def torch_generator(seed: int, *key: Word, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the torch generator of (seed, *key); torch's CPU engine uses only 32 bits of the hash."""
    return torch.Generator(device).manual_seed(_digest(8, seed, *key))


def uniform_rows(
    seed: int, row_ids: Tensor | Sequence[int], step: int | Tensor | Sequence[int], width: int | None = None
) -> Tensor:
    """Return float64 uniforms in [0, 1): (B,), or (B, V) for ``width`` V, whose first column is the (B,) form.

    Each number is a function of (seed, row id, step, column) only. ``step`` may differ by row. The result is on the
    device of ``row_ids``.
    """
    bits_BV = _bits(seed, row_ids, step, 1 if width is None else width)
    u_BV = _like(bits_BV * 2.0**-53, row_ids)
    return u_BV[:, 0] if width is None else u_BV


def gumbel_rows(seed: int, row_ids: Tensor | Sequence[int], step: int | Tensor | Sequence[int], width: int) -> Tensor:
    """Return float64 standard Gumbel noise (B, V), always finite: ``(logits + noise).argmax(-1)`` is a sample."""
    bits_BV = _bits(seed, row_ids, step, width) >> np.uint64(1)
    u_BV = (bits_BV + 0.5) * 2.0**-52  # 52 bits and a half: exact, and never 0 or 1
    return _like(-np.log(-np.log(u_BV)), row_ids)


def philox4x32(counter_4N: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Return ten rounds of Philox4x32: uint32 (4, N) for counters (4, N) and a key of two 32-bit words."""
    counter_4N = np.asarray(counter_4N, np.uint32)
    out_4N = np.empty_like(counter_4N)
    for start in range(0, counter_4N.shape[1], _BLOCK):
        at = slice(start, start + _BLOCK)
        c0, c1, c2, c3 = counter_4N[:, at].astype(np.uint64)
        for r in range(10):
            k0, k1 = (np.uint64((k + r * w) & 0xFFFFFFFF) for k, w in zip(key, _WEYL, strict=True))
            p0, p1 = c0 * np.uint64(_MULTIPLIERS[0]), c2 * np.uint64(_MULTIPLIERS[1])
            c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        out_4N[:, at] = c0, c1, c2, c3
    return out_4N


def state(generators: Generators | None = None) -> dict[str, Any]:
    """Capture Python's, numpy's and torch's global generators, and those given by name.

    Leaves are tensors (torch states) or plain JSON values; nothing needs pickle.
    """
    version, words, gauss = random.getstate()
    captured: dict[str, Any] = {
        "python": {"version": version, "words": list(words), "gauss": gauss},
        "numpy": _plain(np.random.get_state(legacy=False)),  # noqa: NPY002 - other people's code may draw from it
        "torch": torch.get_rng_state(),
        "devices": _device_states(),
        "generators": {},
    }
    for name, source in (generators or {}).items():
        is_torch = isinstance(source, torch.Generator)
        captured["generators"][name] = source.get_state() if is_torch else _plain(source.bit_generator.state)
    return captured


def set_state(captured: Mapping[str, Any], generators: Generators | None = None) -> None:
    """Put back what ``state`` captured, so that the next draw is the one that would have followed, bit for bit."""
    generators = generators or {}
    if captured["generators"].keys() != generators.keys():
        raise CheckpointError(
            f"the saved state has the generators {sorted(captured['generators'])}, this run has {sorted(generators)}: "
            "resume with the run that was saved"
        )
    module, present = _device_module(), len(_device_states())
    if captured["devices"] and len(captured["devices"]) != present:
        raise CheckpointError(
            f"the state was saved with {len(captured['devices'])} accelerators in use, here {present} are: "
            "resume on as many"
        )
    python = captured["python"]
    random.setstate((python["version"], tuple(python["words"]), python["gauss"]))
    np.random.set_state(_arrays(captured["numpy"]))  # noqa: NPY002 - see state
    torch.set_rng_state(captured["torch"])
    if captured["devices"]:
        module.set_rng_state_all(captured["devices"])
    for name, target in generators.items():
        if isinstance(target, torch.Generator):
            target.set_state(captured["generators"][name])
        else:
            target.bit_generator.state = _arrays(captured["generators"][name])


def _digest(size: int, seed: int, *key: Word) -> int:
    """Hash the words; each carries its type, and text its length, so that no two keys read the same."""
    words = (f"s{len(w)}:{w}" if isinstance(w, str) else f"i{operator.index(w)}" for w in (seed, *key))
    message = ",".join(words).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(message, digest_size=size, person=b"seqloom.rng").digest(), "little")


def _bits(seed: int, row_ids: Any, step: Any, width: int) -> np.ndarray:
    """Return 53 random bits for each row and column, uint64 (B, V)."""
    row_B, step_B = _integers(row_ids, "row_ids"), _integers(step, "step")
    if step_B.ndim and step_B.shape != row_B.shape:
        raise ConfigError(f"{len(step_B)} steps for {len(row_B)} rows: give one step, or one for each row")
    if step_B.size and not 0 <= int(step_B.min()) <= int(step_B.max()) < 1 << 32:
        raise ConfigError(f"a step must be in 0 to 2**32 - 1, not {int(step_B.min())} to {int(step_B.max())}")
    rows, blocks = len(row_B), -(-width // 2)  # one counter gives two numbers
    row_B = row_B.astype(np.uint64)  # two's complement: negative ids are as good as any
    counter_4BK = np.empty((4, rows, blocks), np.uint32)
    counter_4BK[0] = np.arange(blocks, dtype=np.uint32)
    counter_4BK[1] = np.broadcast_to(step_B, rows)[:, None]
    counter_4BK[2], counter_4BK[3] = (row_B & _LOW)[:, None], (row_B >> _HALF)[:, None]
    key = _digest(8, seed)
    words_4BK = philox4x32(counter_4BK.reshape(4, -1), (key & 0xFFFFFFFF, key >> 32)).reshape(4, rows, blocks)
    words_BK4 = np.moveaxis(words_4BK, 0, 2).astype(np.uint64)
    bits_BK2 = ((words_BK4[..., 0::2] >> np.uint64(5)) << np.uint64(26)) | (words_BK4[..., 1::2] >> np.uint64(6))
    return bits_BK2.reshape(rows, 2 * blocks)[:, :width]


def _integers(values: Any, name: str) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ConfigError(f"{name} must be whole numbers, not {array.dtype}")
    return array.astype(np.int64)


def _like(values_BV: np.ndarray, row_ids: Any) -> Tensor:
    return torch.from_numpy(values_BV).to(row_ids.device if isinstance(row_ids, Tensor) else "cpu")


def _device_module() -> Any:
    return torch.get_device_module() if torch.accelerator.is_available() else None


def _device_states() -> list[Tensor]:
    """States of the accelerators, none where this process has not used one: asking would start it."""
    module = _device_module()
    in_use = module is not None and hasattr(module, "get_rng_state_all") and module.is_initialized()
    return module.get_rng_state_all() if in_use else []


def _plain(tree: Any) -> Any:
    """Arrays as {"dtype", "values"} and numpy scalars as Python numbers, so that json can write them."""
    if isinstance(tree, Mapping):
        return {name: _plain(value) for name, value in tree.items()}
    if isinstance(tree, np.ndarray):
        return {"dtype": str(tree.dtype), "values": tree.tolist()}
    return tree.item() if isinstance(tree, np.generic) else tree


def _arrays(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    if tree.keys() == {"dtype", "values"}:
        return np.array(tree["values"], tree["dtype"])
    return {name: _arrays(value) for name, value in tree.items()}
