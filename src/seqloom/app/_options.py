"""A mixer's Config from words: ``state=32`` on a command line, a value as JSON or a plain word."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from seqloom.core import discovery
from seqloom.core.component import FORMAT
from seqloom.core.errors import ConfigError
from seqloom.mixers._base import Mixer


def configured(name: str, options: Sequence[str] = ()) -> Mixer.Config:
    """The Config of a mixer with some fields set.

    Args:
        name: The mixer.
        options: ``field=value``, each value as JSON (``32``, ``true``, ``[0.001, 0.1]``) or a plain word.

    Raises:
        ConfigError: There is no such mixer or field, or the field does not take the value.
    """
    kind: Any = discovery.get("mixers", name)
    given: dict[str, Any] = {}
    for option in options:
        field, sign, text = option.partition("=")
        if not sign or not field.strip():
            raise ConfigError(f"{option!r} is no option: write field=value, such as state=32")
        given[field.strip()] = _value(text.strip())
    return kind.Config.from_json({"format": FORMAT, "part": f"mixers/{name}", **given})


def shown(name: str, options: Sequence[str]) -> str:
    """A mixer with its options, as a table names it."""
    return f"{name}({', '.join(option.replace(' ', '') for option in options)})" if options else name


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if not isinstance(value, Mapping) or "part" in value else text
