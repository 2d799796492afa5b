"""One model serves many threads, and the garbage collector is on when they have ended."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import graphnet as gn
from graphnet.system import without_gc

CONV = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}


@pytest.mark.parametrize("threads", [8])
def test_predictions_of_more_sizes_than_plans_are_kept(threads: int) -> None:
    model = gn.Model({"input": {"channels": 2}, "layers": [CONV, "relu", CONV]})
    x = torch.rand(1, 2, 48, 4)
    model.set_weights(
        model.compile(
            (1, 2, 4, 4), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu"
        ).weights
    )
    expected = {size: model.predict(x[:, :, :size]) for size in range(4, 44)}

    def work(seed: int) -> int:
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seed)).tolist()
        for size in (4 + number for number in order):
            assert torch.equal(model.predict(x[:, :, :size]), expected[size])
        return len(order)

    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(work, range(threads))) == 40 * threads


def test_weights_that_change_are_used_by_all_threads() -> None:
    """The values that depend on weights alone are computed again, once, and nobody reads them half-made."""
    layers = [CONV, {"batch_norm2d": {}}, "relu"]
    model = gn.Model({"input": {"channels": 2}, "layers": layers})
    program = model.compile((1, 2, 8, 8), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
    model.set_weights(program.weights)
    x = torch.rand(1, 2, 8, 8)
    before = model.predict(x)
    for _ in range(20):
        model.set_weights({"conv2d_1.bias": torch.rand(4)})
        barrier = threading.Barrier(8)

        def work() -> torch.Tensor:
            barrier.wait()  # noqa: B023 (the threads end within this turn of the loop)
            return model.predict(x)

        with ThreadPoolExecutor(8) as pool:
            found = [future.result() for future in [pool.submit(work) for _ in range(8)]]
        assert all(torch.equal(one, found[0]) for one in found)
        assert not torch.equal(found[0], before)


def test_the_garbage_collector_is_on_after_blocks_that_overlap() -> None:
    """The first thread leaves its block while the second one is in its own."""
    inside, left = threading.Event(), threading.Event()

    def second() -> None:
        inside.wait()
        with without_gc():
            left.wait()
            assert not gc.isenabled()

    thread = threading.Thread(target=second)
    thread.start()
    with without_gc():
        inside.set()
        while threading.active_count() > 1 and not _is_inside(2):
            pass
    left.set()
    thread.join()
    assert gc.isenabled()


def _is_inside(count: int) -> bool:
    from graphnet.system import gc as module

    return module._Inside.count == count
