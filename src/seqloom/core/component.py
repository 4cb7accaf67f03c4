"""Parts with a frozen, typed, nested Config, and the JSON form of every frozen value.

    S4D(width)  =  S4D(width, S4D.Config())  =  S4D.Config().build(width)

What the surroundings dictate is positional, what the paper chooses is in Config.
JSON: {"part": "mixers/s4d", field: value, ...} recursively, "format": 1 at the top. An unknown key, a newer
format or a part that is not discovered is an error; reading never imports anything but discovered parts.
"""

import importlib
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Union, cast, get_args, get_origin, get_type_hints

from seqloom.core import discovery
from seqloom.core.errors import ConfigError

FORMAT = 1
INFINITE = ("inf", "-inf", "nan")
"""How JSON, which has no such numbers, holds them."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A frozen value with a JSON form; subclasses are frozen keyword-only dataclasses."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form with the format's number at the top."""
        return {"format": FORMAT, **_encode(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild a value. Raises ConfigError on anything that this version cannot read faithfully."""
        if document.get("format") != FORMAT:
            newer = document.get("format")
            raise ConfigError(f"format {newer!r} is not {FORMAT}: this file needs another version of seqloom")
        return _decode({key: item for key, item in document.items() if key != "format"}, cls, "the document")


class Component:
    """A part that is built from its nested Config."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Value):
        """Options of the part; ``owner`` is the class that they build."""

        owner: ClassVar[type["Component"]]

        def build(self, *surroundings: Any) -> Any:
            """Build the part for its surroundings (a mixer's width, an objective's vocabulary ...)."""
            return self.owner(*surroundings, self)  # type: ignore[call-arg]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Tie a class to its own Config; a class without one gets an empty one, so that names stay unique."""
        super().__init_subclass__(**kwargs)
        if "Config" not in cls.__dict__:
            base = cls.Config
            empty = type(
                "Config", (base,), {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.Config"}
            )
            cls.Config = dataclass(frozen=True, kw_only=True)(empty)  # type: ignore[misc]
        cls.Config.owner = cls


def part_of(kind: type) -> str:
    """The JSON name of a value's class: ``mixers/s4d`` for a Config, ``training/run.Run`` for another value."""
    if issubclass(kind, Component.Config):
        owner = kind.owner
        for shelf, name in _home_of(owner.__module__):
            return f"{shelf}/{name}"
        return f"{_inside(owner.__module__)}.{owner.__qualname__}"
    return f"{_inside(kind.__module__)}.{kind.__qualname__}"


@cache
def _home_of(module: str) -> tuple[tuple[str, str], ...]:
    """Shelf and name of the part that a module holds, if it holds one."""
    for shelf in sorted(discovery.SHELVES, key=len, reverse=True):
        dotted = "seqloom." + shelf.replace("/", ".") + "."
        name = module.rsplit(".", 1)[-1]
        if module.startswith(dotted) and name in discovery.names(shelf):
            return ((shelf, name),)
    for shelf in discovery.SHELVES:
        for name, entry in discovery._foreign(shelf).items():
            if entry.module == module:
                return ((shelf, name),)
    return ()


def _inside(module: str) -> str:
    return module.removeprefix("seqloom.").replace(".", "/")


def _class_of(part: object, where: str) -> type:
    """The class that a JSON name means; only files of seqloom and discovered parts can be named."""
    if not isinstance(part, str):
        raise ConfigError(f"{where} has no readable part name: {part!r}")
    shelf, _, name = part.rpartition("/")
    if shelf in discovery.SHELVES and name in discovery.names(shelf):
        return discovery.get(shelf, name).Config  # type: ignore[attr-defined]
    path, _, qualname = part.partition(".")
    pieces = path.split("/")
    file = discovery.ROOT.joinpath(*pieces).with_suffix(".py")
    public = all(piece.isidentifier() for piece in [*pieces, *qualname.split(".")])
    if public and file.is_file() and discovery.ROOT in Path(file).resolve().parents:
        found: Any = importlib.import_module("seqloom." + ".".join(pieces))
        for piece in qualname.split("."):
            found = getattr(found, piece, None)
        if isinstance(found, type) and issubclass(found, Component):
            found = found.Config
        if isinstance(found, type) and issubclass(found, Value):
            return found
    raise ConfigError(f"{where} names a part that is not known here: {part!r}")


def _encode(value: Any) -> Any:
    if isinstance(value, Value):
        document = {item.name: _encode(getattr(value, item.name)) for item in fields(value)}
        return {"part": part_of(type(value)), **document}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{type(value).__name__} has no JSON form")


def _decode(document: Any, hint: Any, where: str) -> Any:
    """Read one JSON value as the type that the field declares."""
    origin = get_origin(hint)
    if isinstance(document, Mapping) and "part" in document:
        value = _decode_value(document, where)
        if not _fits(value, hint):
            expected = part_of(hint) if isinstance(hint, type) and issubclass(hint, Value) else hint
            raise ConfigError(f"{where} cannot be {document['part']}: expected {expected}")
        return value
    if origin in (Union, types.UnionType):
        return _decode_union(document, hint, where)
    if origin is tuple and isinstance(document, list):
        inner = get_args(hint)
        each = [inner[0]] * len(document) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
        if len(each) != len(document):
            raise ConfigError(f"{where} needs {len(each)} values, not {len(document)}")
        return tuple(_decode(item, kind, where) for item, kind in zip(document, each, strict=True))
    if origin is Literal:
        if document in get_args(hint):
            return document
    elif hint is Path and isinstance(document, str):
        return Path(document)
    elif (hint is float and isinstance(document, int | float) and not isinstance(document, bool)) or (
        hint is float and document in INFINITE
    ):
        return float(document)
    elif hint is int and isinstance(document, bool):
        pass
    else:
        plain = origin or hint
        if plain is Any or (
            isinstance(plain, type) and not is_dataclass(plain) and isinstance(document, cast(type, plain))
        ):
            return document
    raise ConfigError(f"{where} cannot be {document!r}: expected {getattr(hint, '__name__', hint)}")


def _fits(value: Value, hint: Any) -> bool:
    """Whether a field of this type can hold the value."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    return hint is Any or (isinstance(hint, type) and isinstance(value, hint))


def _decode_union(document: Any, hint: Any, where: str) -> Any:
    if document is None and type(None) in get_args(hint):
        return None
    for kind in get_args(hint):
        try:
            return _decode(document, kind, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} cannot be {document!r}: expected {hint}")


def _decode_value(document: Mapping[str, Any], where: str) -> Any:
    kind = _class_of(document["part"], where)
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}
    extra = [key for key in document if key != "part" and key not in known]
    if extra:
        raise ConfigError(f"{document['part']} has no field {extra[0]!r}; it has {', '.join(known)}")
    given = {}
    for name, item in known.items():
        if name in document:
            given[name] = _decode(document[name], hints[name], f"{document['part']}.{name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{document['part']} lacks the field {name!r}")
    return kind(**given)
