"""Processes: run a function in several processes that exchange tensors by gloo."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch


def in_processes(count: int, task: Callable[..., Any], *args: object) -> list[Any]:
    """Call task(*args) in `count` processes of one torch.distributed group; returns what each returned.

    `task` is a function of a module, and returns tensors in lists and dictionaries. Raises RuntimeError with
    the traceback of the first process that failed.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workers = [
            context.Process(target=_work, args=(rank, count, folder, task, args))
            for rank in range(count)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for rank in range(count):
            if (failed := folder / f"failed-{rank}").exists():
                raise RuntimeError(f"process {rank}: {failed.read_text()}")
        return [torch.load(folder / f"made-{rank}", weights_only=True) for rank in range(count)]


def _work(
    rank: int, count: int, folder: Path, task: Callable[..., Any], args: tuple[object, ...]
) -> None:
    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'store'}",
            rank=rank,
            world_size=count,
            timeout=timedelta(seconds=60),
        )
        torch.save(task(*args), folder / f"made-{rank}")
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    except Exception:
        (folder / f"failed-{rank}").write_text(traceback.format_exc())
