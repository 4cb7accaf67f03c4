"""Ctrl-C and SIGTERM let the step at hand end; the code says which it was."""

import os
import signal
import threading

import pytest

from seqloom.training._interrupt import polite_interrupt


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks_and_the_code_tells_which(number, code):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt) as told, polite_interrupt() as asked:  # noqa: PT012
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
        raise KeyboardInterrupt("saved")
    assert told.value.exit_code == code


def test_handlers_are_put_back_and_ignored_ones_stay():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with polite_interrupt() as asked:
            os.kill(os.getpid(), signal.SIGTERM)
            assert not asked()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_changes_nothing():
    found = []

    def work():
        with polite_interrupt() as asked:
            found.append((asked(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.getsignal(signal.SIGTERM))]
