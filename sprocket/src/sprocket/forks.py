"""What a model forks is a process of its own, as `multiprocessing` does: a signal to it is not the worker's.

A forked child has its parent's handlers, and the way on which Python tells the parent's event loop of a signal. Ending
such a child, as `Pool` and `Process.terminate` do, would have the worker drain, and the child would go on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType

_DEFAULTS: dict[signal.Signals, Callable[[int, FrameType | None], object] | signal.Handlers] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}
_taken: set[signal.Signals] = set()
_forking = threading.local()


def take(numbers: Iterable[signal.Signals]) -> None:
    """These signals are handled by this process from now on, and not by what is forked from it.

    Args:
        numbers: of SIGTERM and SIGINT.
    """
    _taken.update(numbers)


def let_go(numbers: Iterable[signal.Signals]) -> None:
    """They are not any more."""
    _taken.difference_update(numbers)


def _before() -> None:
    # One that comes for the child before it has its own handlers waits until it has.
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _taken)


def _in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _in_child() -> None:
    if _taken:
        signal.set_wakeup_fd(-1)
        for number in _taken:
            signal.signal(number, _DEFAULTS[number])
        _taken.clear()
    _in_parent()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
