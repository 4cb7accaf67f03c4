"""Names that a user gave, against the names that a file has."""

from collections.abc import Collection

from seqloom.data.columns import FLAGS


def parts_of(name: str | None, known: Collection[str]) -> list[str]:
    """The column of a name, or the columns of ``"a,b"``."""
    if name is None:
        return []
    if name in known or "," not in name:
        return [name]
    parts, found = name.split(","), []
    while parts:  # the longest first, since a name may hold a comma itself
        widths = (1, *range(len(parts), 1, -1)) if parts[0].strip() in known else range(len(parts), 0, -1)
        width = next((width for width in widths if ",".join(parts[:width]).strip() in known), 1)
        found.append(",".join(parts[:width]).strip())
        parts = parts[width:]
    return found


def absent(what: str, name: str, role: str) -> str:
    """The problem of a name that the file lacks. A model asks for the names it was fitted with, without any flag."""
    return f"there is no {what} {name!r} (asked for by {FLAGS[role]}, or by the model's training data)"
