"""On loader: train a program on a torch DataLoader, a Dataset or another iterable."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from graphnet.errors import InputError
from graphnet.model import Program
from graphnet.sdk import Epoch
from graphnet.system import as_count, as_path, require
from graphnet.training.config import label_of
from graphnet.training.loader import Data, Loader
from graphnet.training.loop import Loop, Settings
from graphnet.training.reports import Reports
from graphnet.training.run_folder import RunFolder
from graphnet.training.state import LoaderState


def train(
    program: Program,
    data: Data,
    *,
    epochs: int = 1,
    steps_per_epoch: int | None = None,
    validation: Data | None = None,
    metrics: Sequence[object] = (),
    schedule: object = None,
    reporters: Sequence[object] = (),
    log_every: int = 100,
    folder: Path | str | None = None,
    resume: bool = False,
) -> list[Epoch]:
    """Train a program on a torch DataLoader, a torch Dataset, or another iterable of batches.

    A batch has the tensors of `Program.step`, in order, or by the names of the model's inputs and the loss's
    targets. They are converted as those of all data sets, and moved to the program's device. A batch with
    another number of samples runs in a program that `Program.with_shapes` makes. A Dataset is read in batches
    of the program's size, and shuffled if it is map-style. Docs: coming_from_torch.md.

    Args:
        program: the program that is trained; a later call continues with its weights and its optimizer state.
        data: a DataLoader, a Dataset, or another iterable of batches.
        epochs: the number of epochs.
        steps_per_epoch: the number of steps of an epoch; the next epoch continues at the next batch of the
            data. None means one pass over the data.
        validation: data in one of the same forms, on which the loss and the metrics are measured after each
            epoch.
        metrics: metrics as names, {name: {field: value}}, or instances.
        schedule: a schedule in one of these forms, which multiplies `program.lr`; None keeps it.
        reporters: the reporters that get each record, in one of these forms; "progress" shows a bar.
        log_every: the number of steps in a record of the log.
        folder: where the log, a checkpoint after each epoch and the trained model are written.
        resume: whether to continue from the checkpoint in `folder`.

    Returns:
        A record of each epoch that this call has trained. "validation_loss" is among its metrics if there is
        validation data.

    Raises:
        InputError: an argument does not fit.
        DataError: the data does not fit the program, or its own code fails; the message names the batch.
        CheckpointError: there is no checkpoint, or it is of another training.
        TrainingError: the loss is not finite.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from graphnet import Model
    >>> model = Model({"layers": [{"linear": {"out_features": 1}}]})
    >>> program = model.compile((4, 2), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
    >>> x = torch.linspace(0, 1, 20).reshape(10, 2)
    >>> loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=True)
    >>> first, second = train(program, loader, epochs=2)
    >>> first.step, second.step, second.loss < first.loss
    (3, 6, True)
    """
    if not isinstance(program, Program):
        raise InputError(
            f"train: expected a program, got a {type(program).__name__}. Make one with model.compile(shape, "
            f"loss=..., optimizer=...)."
        )
    epochs, log_every = _count("epochs", epochs), _count("log_every", log_every)
    if steps_per_epoch is not None:
        steps_per_epoch = _count("steps_per_epoch", steps_per_epoch)
    require(resume, bool, "train: resume", "True or False")
    for name, given in (("metrics", metrics), ("reporters", reporters)):
        require(given, (list, tuple), f"train: {name}", f"a list of {name}")
    if resume and folder is None:
        raise InputError("train: resume needs the folder of the run: folder=..., resume=True")
    if folder is not None and program.is_divided:
        raise InputError(
            "train: the optimizer's states of this program are divided among processes (shard='optimizer'), "
            "and no process alone can write a checkpoint of them. Leave folder out, or train with "
            "`graphnet train`."
        )
    if metrics and validation is None:
        raise InputError("train: metrics are measured on validation data: give validation=...")
    if metrics and len(outputs := program.description.outputs) > 1:
        raise InputError(
            f"train: metrics measure the model's one output, this one has {', '.join(outputs)}. Leave them "
            f"out: validation_loss is measured on all outputs that have a loss."
        )
    make = program.registry.make
    loader = Loader(data, program, name="the data", shuffle=True, steps=steps_per_epoch)
    if schedule is not None and loader.length is None:
        raise InputError(
            f"train: a schedule needs the number of steps, which {loader.title} does not say: give "
            f"steps_per_epoch=..."
        )
    settings = Settings(
        epochs=epochs,
        log_every=log_every,
        metrics={label_of(one, program.registry): make("metrics", one) for one in metrics},
        schedule=None if schedule is None else make("schedules", schedule),
        config={
            "epochs": epochs,
            "steps_per_epoch": loader.length,
            "schedule": None if schedule is None else label_of(schedule, program.registry),
        },
    )
    measured = None
    if validation is not None:
        measured = Loader(validation, program, name="the validation data")
    path = None if folder is None else as_path(folder, "train: folder")
    with nullcontext() if path is None else RunFolder(path, resume=resume) as run:
        saved = run.resume() if run is not None and resume else None
        state = None if saved is None else LoaderState.of(saved)
        forms = [*reporters, *(() if run is None else ("log",))]
        reports = Reports(
            [make("reporters", one) for one in forms],
            {} if state is None else state.reporters,
            program.registry,
        )
        loop = Loop(program, loader, measured, settings, reports, run)
        if saved is not None and state is not None:
            loop.restore(saved, state)
        found: list[Epoch] = []
        for record in reports.follow(loop.running(), loop.records()):
            if isinstance(record, Epoch):
                found.append(record)
                if run is not None:
                    run.save(loop.checkpoint())
        if run is not None:
            run.finish(loop.checkpoint())
        return found


def _count(name: str, count: object) -> int:
    if (number := as_count(count, f"train: {name}")) == 0:
        raise InputError(f"train: {name}: expected an integer greater than 0, got 0.")
    return number
