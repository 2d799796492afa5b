"""Overlap: one thread prepares what comes next, another one completes what is done.

Both hold few bytes: a new item is not begun while the waiting ones are larger than a limit. So many small
images wait at a time, but only one large block. Their number is limited too, since each image has open files.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

WAITING_BYTES = 32 << 20
WAITING = 64

T = TypeVar("T")


class Ahead(Generic[T]):
    """Runs an iterator in a thread, some items ahead of the one who takes them.

    An error of the iterator is raised where the item is taken. Use it in a `with` block: the thread ends with
    the block.

    Args:
        items: the iterator; it runs in the other thread only.
        size: the bytes of an item.
    """

    def __init__(self, items: Iterator[T], size: Callable[[T], int]) -> None:
        self._items = items
        self._size = size
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopped = self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._has_room())
                    if self._stopped:
                        return
                item = next(self._items)
                with self._changed:
                    self._ready.append(item)
                    self._changed.notify_all()
                del item
        except StopIteration:
            pass
        except BaseException as error:  # it is raised again where the items are taken
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        small = sum(map(self._size, self._ready)) < WAITING_BYTES
        return not self._ready or (small and len(self._ready) < WAITING)

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._ended)
                if not self._ready:
                    break
                item = self._ready.popleft()
                self._changed.notify_all()
            yield item
            del item  # before the next one is waited for
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()


class Behind:
    """Runs tasks in a thread, one after the other.

    A task takes care of its own errors. Use it in a `with` block, which ends when all tasks have run, also
    after an error in the block.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[], None], int]] = deque()
        self._changed = threading.Condition()
        self._bytes = 0
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writing", daemon=True)

    def do(self, task: Callable[[], None], size: int = 0) -> None:
        """Let the thread run a task that holds this many bytes; wait if others hold too many already."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._has_room(size))
            if self._error is not None:
                raise self._error
            self._bytes += size
            self._waiting.append((task, size))
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        small = not self._bytes or self._bytes + size < WAITING_BYTES
        return small and len(self._waiting) < WAITING

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                task, size = self._waiting.popleft()
            try:
                task()
            except BaseException as error:  # a fault: it is raised where tasks are given
                self._error = error
            del task  # and with it what the task holds
            with self._changed:
                self._bytes -= size
                self._changed.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error
