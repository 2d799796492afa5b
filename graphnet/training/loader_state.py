"""Loader state: what a checkpoint keeps of a training on a loader, and what it cannot keep."""

from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from graphnet.errors import CheckpointError
from graphnet.training.loader import Loader
from graphnet.training.state import RandomStates

_PLAIN_SAMPLERS = (RandomSampler, SequentialSampler)


def random_states(loader: Loader) -> RandomStates:
    """The states of the random generators that torch's own loaders draw from."""
    version, words, gauss = random.getstate()
    generator = _generator(loader)
    return RandomStates(
        torch=_text(torch.get_rng_state()),
        python=(version, [*words], gauss),
        loader=None if generator is None else _text(generator.get_state()),
    )


def restore_random_states(loader: Loader, states: RandomStates) -> None:
    """Set the states that `random_states` returned.

    Raises:
        CheckpointError: only one of both runs has a loader with a generator, or a state is damaged.
    """
    generator = _generator(loader)
    if (states.loader is None) != (generator is None):
        raise CheckpointError(
            f"{loader.title}: the checkpoint was made with another loader: expected "
            f"{'none' if states.loader is None else 'one'} that has a `generator`"
        )
    version, words, gauss = states.python
    try:
        random.setstate((version, tuple(words), gauss))
        torch.set_rng_state(_tensor(states.torch))
        if generator is not None and states.loader is not None:
            generator.set_state(_tensor(states.loader))
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint holds no states of random generators that this version of Python and torch can "
            f"take: {error}"
        ) from None


def resumed(loader: Loader) -> str:
    """Say what is the same in a resumed run, and what is not, for the log."""
    source = loader.source
    unknown = ["whether the data set has changed", "numpy's global random state"]
    if not isinstance(source, DataLoader):
        unknown.insert(0, "what the iterable yields after it has started again")
    else:
        if isinstance(source.dataset, torch.utils.data.IterableDataset):
            unknown.insert(0, "what the iterable data set yields after it has started again")
        if source.num_workers and source.persistent_workers:
            unknown.append("what its persistent workers remember")
        batches, sampler = source.batch_sampler, source.sampler
        plain = type(batches) in (BatchSampler, type(None)) and type(sampler) in _PLAIN_SAMPLERS
        if isinstance(sampler, RandomSampler):
            plain = plain and sampler.generator in (None, source.generator)
        if not plain and not isinstance(source.dataset, torch.utils.data.IterableDataset):
            unknown.append("what its own sampler remembers")
    if loader.steps is not None:
        unknown.insert(0, "the position in the data, which begins anew")
    return (
        f"{loader.title}: the weights, the optimizer, the step count and the random states of torch, Python "
        f"and the loader's generator are those of the checkpoint. It does not hold: {', '.join(unknown)}."
    )


def _generator(loader: Loader) -> torch.Generator | None:
    return loader.source.generator if isinstance(loader.source, DataLoader) else None


def _text(state: Tensor) -> str:
    return bytes(state.tolist()).hex()


def _tensor(text: str) -> Tensor:
    return torch.tensor([*bytes.fromhex(text)], dtype=torch.uint8)
