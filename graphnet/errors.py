"""Every error that graphnet raises on purpose: one class for each kind that a caller may want to handle.

A message says where the fault is, what was expected, what was found, and what to do. The command line
prints the message without a traceback and exits with status 2.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

MOST_PROBLEMS = 20
MOST_CHARACTERS = 600


class GraphnetError(Exception):
    """Base of all errors that graphnet raises on purpose."""


class ContractError(GraphnetError, TypeError):
    """A plugin class breaks the rules of its base class; raised when Python defines the class."""


class UnknownNameError(GraphnetError, LookupError):
    """No plugin has registered this name."""


class PluginError(GraphnetError):
    """A plugin could not be loaded, or registered something that cannot be used."""


class NameTakenError(PluginError):
    """A plugin registers a name that another plugin has; `taken` is the kind and the name."""

    def __init__(self, message: str, taken: tuple[str, str]) -> None:
        super().__init__(message)
        self.taken = taken


class GraphError(GraphnetError):
    """The graph cannot be built: shapes do not fit, there is a cycle, or an input is missing."""


class LayerError(GraphnetError):
    """A layer's code raised an error, which is the `__cause__`, or returned what it may not return."""


class PlanError(GraphnetError):
    """The verifier rejects a plan, since its steps would not compute what its graph states."""


class MachineError(GraphnetError):
    """A stored measurement of this machine cannot be read."""


class SourceError(GraphnetError):
    """A plan cannot be written as a Python file."""


class MemoryBudgetError(GraphnetError):
    """A step needs more memory than its budget, even when values are recomputed."""


class CompileError(GraphnetError):
    """A compiler is missing, or rejects a plan or a C++ file."""


class CacheError(GraphnetError):
    """The cache of compiled plans cannot be used."""


class DeviceError(GraphnetError):
    """The requested device is unknown, or this machine does not have it."""


class InputError(GraphnetError, ValueError):
    """A value that the caller passed, such as a tensor for a compiled model, does not fit."""


class WriteError(GraphnetError):
    """A file cannot be written; an older file at the same path is unchanged."""


class CheckpointError(GraphnetError):
    """A model or checkpoint file cannot be read, written or used."""


class DataError(GraphnetError):
    """A data set cannot be read or does not fit the model."""


class TrainingError(GraphnetError):
    """Training cannot continue, for example because the loss is not finite."""


class GraphnetWarning(UserWarning):
    """Base of all warnings that graphnet gives; the command line prints each as one line, once."""


class SlowPrecisionWarning(GraphnetWarning):
    """The device has no instructions for the precision, so it converts numbers and computes more slowly."""


class PluginWarning(GraphnetWarning):
    """A setting about plugins has no effect, such as the name of a plugin that is not installed."""


class DistributionWarning(GraphnetWarning):
    """The other project called graphnet is installed too: its files and ours lie in one folder."""


class CacheWarning(GraphnetWarning):
    """The cache of compiled plans cannot be written, so each run compiles them again."""


class NativeWarning(GraphnetWarning):
    """A C++ file of a kernel cannot be compiled or loaded here, so slower kernels run."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a description.

    Args:
        message: what is wrong.
        path: the field, such as layers[0].conv2d.stride; empty if the fault is not in one field.
        where: the place in the file, file:line:column; empty if there is no file.
    """

    message: str
    path: str = ""
    where: str = ""

    def under(self, *places: str) -> Problem:
        """The same problem of a part: the places of that part stand before the path.

        >>> str(Problem("expected number, found 'a'", "lr").under("optimizer", "sgd"))
        "optimizer.sgd.lr: expected number, found 'a'"
        """
        return replace(self, path=".".join(part for part in (*places, self.path) if part))

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.path) if part)
        return f"{place}: {self.message}" if place else self.message


class DescriptionError(GraphnetError, ValueError):
    """A description or configuration is wrong; `problems` holds every fault once.

    The message has the first 20 of them, and at most 600 characters of each.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        # A faulty block reports its faults again at each use.
        self.problems = tuple(dict.fromkeys(problems))
        lines = [elide(str(problem), MOST_CHARACTERS) for problem in self.problems[:MOST_PROBLEMS]]
        if (more := len(self.problems) - MOST_PROBLEMS) > 0:
            lines.append(f"and {more:,} more")
        super().__init__("\n".join(lines))

    def under(self, *places: str) -> DescriptionError:
        """The same error of a part, as `Problem.under`."""
        return DescriptionError([problem.under(*places) for problem in self.problems])


@contextmanager
def blame(where: str, doing: str, *, after: str = "") -> Iterator[None]:
    """Add the place to the message of any error that a plugin's code raises inside the `with` block.

    A GraphnetError keeps its class, but a DescriptionError becomes a GraphError; any other error becomes a
    LayerError. The original error is the new one's `__cause__`.

    Args:
        where: text before the message, such as "node 'a' (relu): ".
        doing: what the code was doing, for the message "... failed".
        after: text after the message.

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
    """Make the error that says which step of a plan failed; raise it from `error`.

    Args:
        error: the error that the layer's code raised.
        node: the name of the node.
        title: the name of its layer.
        method: the layer's method that failed, such as "forward".
        where: the node's place in its file; empty if there is no file.
        given: the shapes of the arguments as text; empty if they are not known.
    """
    place = f"{where}: " if where else ""
    on = f" on {given}" if given else ""
    told = sentence(f"{type(error).__name__}: {error}")
    if isinstance(error, IndexError):
        told += " Is every token, class label or other index in the range that the layer has?"
    return LayerError(f"{place}node {node!r} ({title}): {method} failed{on}: {told}")


def sentence(text: str) -> str:
    """The text with a full stop at its end, unless it ends a sentence already.

    >>> sentence("no message"), sentence("Did you mean 'relu'?")
    ('no message.', "Did you mean 'relu'?")
    """
    return text if text.endswith((".", "?", "!")) else f"{text}."


def elide(text: str, width: int) -> str:
    """Shorten a text to `width` characters: "…" replaces its middle.

    >>> elide("encoder.block.conv.weight", 12)
    'encod…weight'
    """
    if len(text) <= width:
        return text
    left = max(0, width - 1) // 2
    return f"{text[:left]}…{text[len(text) - (width - 1 - left) :]}"


class _Shown(reprlib.Repr):
    """Short texts of values; a value whose own `repr` fails is named by its type."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60
        self.maxlevel = 3

    def repr_instance(self, x: Any, level: int) -> str:
        try:
            return elide(repr(x), self.maxother)
        except Exception:
            return f"<{type(x).__name__}>"

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < 10_000 else "a very long integer"


def shown(value: object) -> str:
    """A value as a short text for a message, however large it is.

    >>> shown("a"), shown([1, 2]), shown([*range(100_000)])
    ("'a'", '[1, 2]', '[0, 1, 2, 3, 4, 5, ...]')
    """
    return elide(_Shown().repr(value), 160)


_LONGEST_NAME = 100
_MOST_NAMES = 200


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known names that are most similar to `name`; list them if none is similar.

    >>> nearest("conv2", ["conv2d", "relu"])
    "Did you mean 'conv2d'?"
    """
    names = sorted(known)
    if not names:
        return "None is known."
    close = []
    if len(name) <= _LONGEST_NAME:
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(repr(match) for match in close)}?"
    more = len(names) - _MOST_NAMES
    listed = ", ".join(elide(one, _LONGEST_NAME) for one in names[:_MOST_NAMES])
    return f"Known: {listed}{f' and {more:,} more' if more > 0 else ''}."
