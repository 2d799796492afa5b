"""Every error that graphnet raises on purpose: one class for each thing a caller may want to handle.

A message says where, what was expected, what was found, and what to do. The command line prints it as
it stands and exits with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


class GraphnetError(Exception):
    """Base of all errors that graphnet raises on purpose."""


class ContractError(GraphnetError, TypeError):
    """A plugin class breaks its contract; raised when the class is defined."""


class UnknownNameError(GraphnetError, LookupError):
    """A name that no plugin registered."""


class PluginError(GraphnetError):
    """A plugin could not be loaded, or registered something that cannot be used."""


class GraphError(GraphnetError):
    """The graph cannot be built: shapes clash, a cycle, a dangling input."""


class LayerError(GraphnetError):
    """Code of a layer failed, or returned what its contract forbids; the cause is kept."""


class PlanError(GraphnetError):
    """The verifier rejects a plan."""


class MachineError(GraphnetError):
    """A stored measurement of this machine cannot be read."""


class SourceError(GraphnetError):
    """A plan cannot be written as a file that stands alone."""


class MemoryBudgetError(GraphnetError):
    """A step needs more memory than it was given, even if it computes values again."""


class CompileError(GraphnetError):
    """The compiler is missing, or refuses a plan."""


class CacheError(GraphnetError):
    """The cache of compiled plans cannot be used."""


class DeviceError(GraphnetError):
    """The device asked for is not there."""


class InputError(GraphnetError, ValueError):
    """A tensor handed to a compiled model or module does not fit."""


class WriteError(GraphnetError):
    """A file cannot be written; an old file in its place is unchanged."""


class CheckpointError(GraphnetError):
    """A model or checkpoint file cannot be read, written or used."""


class DataError(GraphnetError):
    """A data set cannot be read or does not fit the model."""


class TrainingError(GraphnetError):
    """Training cannot go on, for example because the loss is not finite."""


class SlowPrecisionWarning(UserWarning):
    """A precision that the device has no instructions for: it computes in it, and converts, more slowly."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a description: where (file:line:column), the field's path, and what."""

    message: str
    path: str = ""
    where: str = ""

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.path) if part)
        return f"{place}: {self.message}" if place else self.message


class DescriptionError(GraphnetError, ValueError):
    """A description or configuration is wrong; `problems` holds everything that is wrong with it, once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        # A block that is used often is wrong each time.
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))


@contextmanager
def blame(where: str, doing: str, *, after: str = "") -> Iterator[None]:
    """Run a plugin's code; what it raises gains the place (and `after`), and keeps its cause.

    One of graphnet's errors keeps its class, any other becomes a LayerError.

    >>> with blame("node 'a' (relu): ", "forward"):
    ...     1 / 0
    Traceback (most recent call last):
    graphnet.errors.LayerError: node 'a' (relu): forward failed: ZeroDivisionError: division by zero
    """
    try:
        yield
    except GraphnetError as error:
        # A DescriptionError is made of problems, not of a message.
        kind = GraphError if isinstance(error, DescriptionError) else type(error)
        raise kind(f"{where}{str(error).rstrip('.') if after else error}{after}") from error
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise LayerError(f"{where}{doing} failed: {cause}{after}") from error


def step_failure(
    error: Exception, *, node: str, title: str, method: str, where: str = "", given: str = ""
) -> LayerError:
    """What went wrong in a step, in words; raise it from `error`.

    Args:
        error: what the layer's code raised.
        node, title, method: the node of the graph, its layer's name and the method that failed.
        where: the node's place in its file; empty if it has none.
        given: the shapes of the arguments, in words; empty if they are not known.
    """
    place = f"{where}: " if where else ""
    on = f" on {given}" if given else ""
    return LayerError(
        f"{place}node {node!r} ({title}): {method} failed{on}: {type(error).__name__}: {error}"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the known names closest to `name`, or lists them all when none is close."""
    names = sorted(known)
    if not names:
        return "None is known."
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(repr(match) for match in close)}?"
    return f"Known: {', '.join(names)}."
