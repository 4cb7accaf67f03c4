"""Which device a name means."""

import torch

from seqloom.core.errors import ConfigError


def device_named(name: str | torch.device) -> torch.device:
    """``auto`` takes an accelerator where there is one that every part runs on."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return found if found is not None and found.type == "cuda" else torch.device("cpu")
    try:
        wanted = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {name!r}; say auto, cpu or cuda") from error
    if wanted.type != "cpu" and (found is None or found.type != wanted.type):
        raise ConfigError(f"this machine has no {wanted.type}; say --device cpu")
    return wanted
