"""Mutated files are read or refused in words, soon and with no other exception. `make fuzz` tries more."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
import torch

from graphnet.description import parse
from graphnet.model import Checkpoint, write_checkpoint
from tests.fuzz.mutate import mutated_bytes, mutated_text
from tests.fuzz.targets import TEXTS, checkpoint_file

TRIALS = int(os.environ.get("GRAPHNET_FUZZ_FILES", "150"))
_SLOW_S = 20.0  # a hang, on a machine however busy


@pytest.mark.fuzz
@pytest.mark.parametrize("name", TEXTS)
def test_mutated_texts_are_read_or_refused(name: str) -> None:
    target, corpus = TEXTS[name]
    texts = corpus()
    for seed in range(TRIALS):
        text = mutated_text(random.Random(seed), texts)
        started = time.monotonic()
        try:
            target(text.encode("utf-8", errors="surrogatepass"))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - started < _SLOW_S, f"seed {seed}"


@pytest.mark.fuzz
def test_mutated_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    corpus = []
    for layers in (["relu"], [{"linear": {"out_features": 2}}]):
        weights = {"linear_1.weight": torch.ones(2, 3), "linear_1.bias": torch.ones(2)}
        description = parse({"layers": layers})
        write_checkpoint(path, Checkpoint(description, weights, training={"step": 1}))
        corpus.append(path.read_bytes())
    for seed in range(TRIALS):
        try:
            checkpoint_file(path, mutated_bytes(random.Random(seed), corpus))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
