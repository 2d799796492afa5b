"""Command: what a plugin states of one of its commands; the command's code is imported when it is called."""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphnet.errors import PluginError

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the command line: its help in one line, and where its click command is.

    Args:
        help: what `graphnet --help` prints for it, one line.
        target: "module:attribute", a click command. The module is imported when the command is called.

    Raises:
        PluginError: the help is empty or has several lines, or the target has another form.

    >>> command = Command("Denoise images.", "acme_layers.commands:denoise")
    >>> command.help, command.target
    ('Denoise images.', 'acme_layers.commands:denoise')
    """

    help: str
    target: str

    def __post_init__(self) -> None:
        if not self.help.strip() or "\n" in self.help.strip():
            raise PluginError(f"the help of a command must be one line, found {self.help!r}")
        if not _TARGET.fullmatch(self.target):
            raise PluginError(
                f"the target of a command must be 'module:attribute', found {self.target!r}"
            )
