"""Signals: how Ctrl-C (SIGINT), SIGTERM and SIGHUP end a command.

They raise Ended in the main thread, so that `with` blocks are left and temporary files deleted. The exit
status is 128 plus the signal's number, as shells expect: 130, 143, 129. Work that can stop between two steps
takes the first signal as a request, by `stop_requested`.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

_NUMBERS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # Windows has no SIGHUP
_AGAIN_S = 0.05
_IMPORT_S = 10.0  # an import that takes longer is interrupted
_UNCHANGED = (signal.SIG_DFL, signal.default_int_handler)


class Ended(KeyboardInterrupt):
    """A signal has ended the command; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stop:
    """Whether a stop was requested, as the truth of this object.

    >>> bool(Stop())
    False
    """

    number = 0

    def __bool__(self) -> bool:
        return self.number != 0

    @property
    def status(self) -> int:
        """The exit status of a command that has stopped for the signal."""
        return 128 + self.number


def status_of(error: BaseException) -> int:
    """The exit status after an interruption."""
    return 128 + (error.number if isinstance(error, Ended) else signal.SIGINT)


_received: ContextVar[Stop | None] = ContextVar("received", default=None)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let signals that would end the process raise Ended in the `with` block.

    An error that follows a signal is Ended too: what runs in the block may raise another error from Ended, as
    an import that was interrupted raises ImportError, and click raises Abort.
    """
    received = Stop()
    before = _received.set(received)
    ending = _Ending(received)
    try:
        with _unraised_in_silence(), _handled(ending, only=_UNCHANGED):
            yield
    except (Exception, SystemExit) as error:
        if received:
            raise Ended(received.number) from error
        raise
    finally:
        ending.close()
        _received.reset(before)


class _Ending:
    """Raises Ended; within an import, the signal comes again later, since C++ code there may not raise.

    Args:
        received: takes the number of the signal at once.
    """

    def __init__(self, received: Stop) -> None:
        self.received = received
        self._until = 0.0  # until then, imports are waited for
        self._timer: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received.number = number
            self._until = now + _IMPORT_S
        if not _is_importing(frame) or now > self._until:
            raise Ended(number)
        self._timer = threading.Timer(_AGAIN_S, signal.raise_signal, (number,))
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def raise_again() -> None:
    """Raise Ended if a signal has come and the command goes on all the same.

    Some code has taken it: `except:` around an import, or Python itself, where a function that cannot raise
    is called. It is called where a command begins its work, after its imports.
    """
    if received := _received.get():
        raise Ended(received.number)


@contextmanager
def _unraised_in_silence() -> Iterator[None]:
    """Let Python print nothing if it drops an Ended, as it does in a function that an import calls back."""
    print_it = sys.unraisablehook

    def hook(unraised: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraised.exc_value, Ended):
            print_it(unraised)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = print_it


@contextmanager
def stop_requested() -> Iterator[Stop]:
    """Give the `with` block a Stop, which the first signal makes true; the second signal raises Ended.

    A signal that the process ignores stays ignored, such as SIGHUP under nohup. Raises Ended if a signal came
    before, as `raise_again` does.
    """
    raise_again()
    stop, received = Stop(), _received.get()

    def handle(number: int, frame: FrameType | None) -> None:
        if not stop:
            stop.number = number
            return
        if received is not None:
            received.number = number
        raise Ended(number)

    with _handled(handle, only=None):
        yield stop


@contextmanager
def _handled(
    handle: Callable[[int, FrameType | None], None], *, only: tuple[object, ...] | None
) -> Iterator[None]:
    """Handle the signals that are not ignored, or those with one of the handlers `only`."""
    before: dict[int, object] = {}
    if threading.current_thread() is threading.main_thread():  # others cannot set handlers
        handlers = {number: signal.getsignal(number) for number in _NUMBERS}
        before = {
            number: handler
            for number, handler in handlers.items()
            if handler is not signal.SIG_IGN and (only is None or handler in only)
        }
    try:
        for number in before:
            signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what getsignal has returned
