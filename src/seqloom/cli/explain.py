"""Explain a part: who runs a kernel and why, what a mixer can do, what a config's fields mean."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from seqloom.cli._flags import File
from seqloom.cli._terminal import Terminal
from seqloom.core import discovery
from seqloom.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Explain a part: who runs a kernel and why the others do not, what a mixer can do, what its fields mean.

    Example:
        seqloom explain mixer gru
    """

    what: Positional[Literal["kernel", "mixer", "model", "tokenizer", "objective", "decoder", "reader"]]
    """Kind of the part."""
    name: Positional[str]
    """Its name; seqloom list shows them."""
    option: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FIELD=VALUE")] = ()
    """Of a mixer: an option such as state=16; once for each."""
    width: int = 64
    """Of a mixer: the width for which its cost is told."""
    plot: File = None
    """Of a linear time-invariant mixer: draw a few of its kernels, as they begin, into a .svg, .png or .html file."""
    length: int = 1024
    """Lags of the picture."""
    json: bool = False
    """One JSON object on stdout."""

    def run(self) -> int:
        """Explain."""
        terminal = Terminal(as_json=self.json)
        from seqloom.app import explain

        shelf = explain.shelf_of(self.what, self.name)
        if shelf is None:
            shelves = [one for one in explain.SHELVES[self.what] if discovery.names(one)]
            known = ", ".join(name for one in shelves for name in discovery.names(one))
            raise ConfigError(f"there is no {self.what} {self.name!r}; there are {known or 'none'}")
        if self.what != "mixer" and (self.option or self.plot is not None):
            raise ConfigError(f"--option and --plot are for mixers, not for a {self.what}")
        if self.plot is not None:
            self._draw(terminal, self.plot)
        document: dict[str, Any] = explain.explain(shelf, self.name, options=self.option, width=self.width)
        if self.json:
            terminal.give(document)
        else:
            terminal.say("\n".join(explain.lines(document)))
        return 0

    def _draw(self, terminal: Terminal, plot: str) -> None:
        from seqloom.app._kernel_picture import check_picture, kernels_of, write_picture
        from seqloom.app._options import configured, shown

        check_picture(plot)
        config, name = configured(self.name, self.option), shown(self.name, self.option)
        terminal.note(f"picture: {write_picture(kernels_of(name, config, self.width, self.length), plot)}")
