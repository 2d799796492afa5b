"""Processes: start the processes of a training, join them, and say in one sentence which has failed, and why.

torchrun starts processes, tells each its number by environment variables, and ends all if one fails. A
process that fails leaves its reason in torchrun's store. The others get an error from their next exchange,
and read it there.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import click
import torch
from torch.distributed.rendezvous import rendezvous

from graphnet.errors import GraphnetError
from graphnet.model import SINGLE, Joined, join_processes

TIMEOUT_S = 300.0
_EXCHANGE = re.compile(
    r"gloo|NCCL|pair closure|Connection (closed|reset)"
)  # torch has no class for it
_TIMEOUT = re.compile("timed out|timeout", re.IGNORECASE)
_PATIENCE_S = 10.0  # for the others' last words, after an exchange has failed


def is_one_of_several() -> bool:
    """Whether torchrun, or what sets the same environment variables, has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_restarted() -> bool:
    """Whether torchrun has started this process again, since one of the processes had failed."""
    return _restarts() != "0"


def _restarts() -> str:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


@contextmanager
def joined(timeout_s: float) -> Iterator[Joined]:
    """Join the processes that torchrun has started, for the `with` block; alone without torchrun.

    An error of one process ends all. Exactly one of them prints it.

    Args:
        timeout_s: how many seconds a process waits for the others.
    """
    if not is_one_of_several():
        yield SINGLE
        return
    distributed, timeout = torch.distributed, timedelta(seconds=timeout_s)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    try:
        shared, rank, count = next(rendezvous("env://", timeout=timeout))
        # torchrun keeps its store when it starts processes again: what the last ones wrote is not for these.
        store = distributed.PrefixStore(f"graphnet {_restarts()}", shared)  # type: ignore[attr-defined]
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=count, timeout=timeout
        )
    except (RuntimeError, ValueError) as error:  # torch's own errors are of the former
        raise Failed(
            f"the processes cannot join: {error}. Check the address and port that torchrun was given, and "
            f"that all processes were started."
        ) from error
    words = _LastWords(store, rank, count)
    try:
        yield join_processes(timeout_s)
    except Exception as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it as soon as one has ended
        if os.environ.get("GRAPHNET_TRACEBACK"):
            raise
        try:
            words.leave("" if _is_of_exchange(error) else _text(error))
            distributed.destroy_process_group()  # the others need not wait for this one any more
            message = words.to_print(error, timeout_s)
        except RuntimeError:  # torchrun's store is gone, and with it the first machine
            message = f"process {rank}: {_text(error)}"
        if message:
            raise Failed(message) from error
        raise click.exceptions.Exit(2) from error
    except BaseException:
        with suppress(RuntimeError):
            words.leave("it was interrupted")
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


class Failed(GraphnetError):
    """One of several processes has failed; the message names it."""


class _LastWords:
    """Why processes end, which each tells the others through torchrun's store."""

    def __init__(self, store: Any, rank: int, count: int) -> None:
        self.store = store
        self.rank = rank
        self.count = count
        self.mine = ""
        store.set(self._place(rank), f"{os.getpid()} {socket.gethostname()}")

    def leave(self, words: str) -> None:
        """Tell the others why this process ends; an empty text if it only lost the others."""
        self.mine = words
        self.store.set(self._key(self.rank), words)

    def to_print(self, error: Exception, timeout_s: float) -> str:
        """What this process has to print; an empty text if another prints why all end."""
        said = self._wait()
        silent = [rank for rank in range(self.count) if rank not in (*said, self.rank)]
        timed_out = not self.mine and _TIMEOUT.search(str(_root(error))) is not None
        if timed_out:
            self._end(silent)
        same = [rank for rank, words in said.items() if words == self.mine]
        if self.mine:
            if not same:
                return f"process {self.rank}: {self.mine}"
            return self.mine if self.rank < min(same) else ""
        if any(said.values()) or any(rank < self.rank for rank in same):
            return ""
        if not silent:
            return f"the processes have lost each other: {_root(error)}"
        *most, last = map(str, silent)
        who = f"processes {', '.join(most)} and {last}" if most else f"process {last}"
        they, hang, their = ("they", "hang", "their") if most else ("it", "hangs", "its")
        what = (
            f"did not answer for {timeout_s:g} s; {they} {hang}, or {their} machine cannot be reached"
            if timed_out
            else f"ended without a word; {they} may have been killed because memory ran out"
        )
        return f"{who} {what}. Continue from the last checkpoint with --resume."

    def _wait(self) -> dict[int, str]:
        """The words of the others by rank, as soon as all have left some, or after a while."""
        others = [rank for rank in range(self.count) if rank != self.rank]
        said: dict[int, str] = {}
        end = time.monotonic() + _PATIENCE_S
        while len(said) < len(others) and time.monotonic() < end:
            for rank in others:
                if rank not in said and self.store.check([self._key(rank)]):
                    said[rank] = self.store.get(self._key(rank)).decode()
            time.sleep(0.05)
        return said

    def _end(self, silent: Sequence[int]) -> None:
        """End processes on this machine that hang; torchrun would wait for half a minute."""
        for rank in silent:
            pid, _, host = self.store.get(self._place(rank)).decode().partition(" ")
            if host == socket.gethostname():
                with suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)

    def _key(self, rank: int) -> str:
        return f"graphnet last words {rank}"

    def _place(self, rank: int) -> str:
        return f"graphnet place {rank}"


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, GraphnetError) else f"{type(error).__name__}: {error}"


def _is_of_exchange(error: BaseException) -> bool:
    """Whether an exchange with the other processes has raised this error."""
    return any(
        isinstance(one, RuntimeError) and _EXCHANGE.search(str(one)) for one in _chain(error)
    )


def _root(error: BaseException) -> BaseException:
    *_, last = _chain(error)
    return last


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def start_processes(count: int, arguments: Sequence[str]) -> int:
    """Start a command of graphnet in several processes on this machine, as torchrun does.

    Args:
        count: the number of processes.
        arguments: the command and its arguments.

    Returns:
        The exit status.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    # Without warnings of exchanges that nobody waits for any more.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    logging.disable(logging.CRITICAL)  # the process that has failed says it in a sentence
    try:
        elastic_launch(config, sys.executable)("-m", "graphnet", *arguments)
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return 2 if first.exitcode < 0 else first.exitcode
    finally:
        logging.disable(logging.NOTSET)
    return 0


def arguments_again(context: click.Context, *, without: str) -> list[str]:
    """The arguments of the command that runs, for another process, but for the option `without`."""
    options, others = list[str](), list[str]()
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if parameter.name == without or value in (None, (), False):
            continue
        if isinstance(parameter, click.Argument):
            others.append(str(value))
            continue
        for one in value if isinstance(value, tuple) else (value,):
            options += [parameter.opts[0], *([] if one is True else [str(one)])]
    return [*options, "--", *others]
