"""Ctrl-C and SIGTERM that wait for the step at hand."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ASKING = (signal.SIGINT, signal.SIGTERM)
"""A service manager or a batch system stops a process with SIGTERM, and kills it some seconds later."""


@contextmanager
def polite_interrupt() -> Iterator[Callable[[], bool]]:
    """The first signal asks to stop after the step at hand; the second one stops at once.

    The KeyboardInterrupt that leaves the block gets ``exit_code``: 128 + the signal's number, 130 or 143.
    """
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in ASKING}
    if threading.current_thread() is not threading.main_thread() or None in before.values():
        yield lambda: False  # only the main thread may change a handler, and only one that Python knows
        return

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        put_back()

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup and its kin have a reason
            signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    except KeyboardInterrupt as error:
        if asked:
            error.exit_code = 128 + asked[0]  # type: ignore[attr-defined]
        raise
    finally:
        put_back()
