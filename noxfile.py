"""The fast tests of the core under each supported Python and torch (`make matrix`), and the session `hour`.

A Python that this machine lacks, or a torch that cannot be installed for it, is named as not run.
"""

from __future__ import annotations

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
TORCHES = ["2.11.0", "2.13.0"]  # the oldest and the newest supported
ROOMS = ["system", "sdk", "description", "graph", "passes", "plan", "model", "cli"]

nox.options.sessions = ["matrix"]
nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "venv"


@nox.session(python=PYTHONS)
@nox.parametrize("torch", TORCHES)
def matrix(session: nox.Session, torch: str) -> None:
    """Install one torch, the project and what tests need; run the tests that are not slow."""
    try:
        session.install("--quiet", "--upgrade", "pip>=25.1")
        session.install("--quiet", f"torch=={torch}")
        session.install("--quiet", "--group", "test", "-e", ".", "-e", "plugins/graphnet-denoise")
    except nox.command.CommandFailed:
        session.skip(f"not run: torch {torch} cannot be installed for Python {session.python} here")
    tests = [f"tests/{room}" for room in ROOMS]
    session.run(
        "python",
        "-m",
        "pytest",
        "-n",
        "auto",
        "-m",
        "not slow",
        *tests,
        env={"OMP_NUM_THREADS": "1"},
    )


@nox.session(python="3.13", reuse_venv=True)
def hour(session: nox.Session) -> None:
    """What `make hour` does, on the newest Python: a plugin with one of each kind, from wheels."""
    try:
        session.install("--quiet", f"torch=={TORCHES[-1]}", "-e", ".", "mypy", "setuptools>=77")
    except nox.command.CommandFailed:
        session.skip(f"not run: torch cannot be installed for Python {session.python} here")
    session.run("python", "-m", "tests.hour")
