"""Verify: check that a plan computes what its graph states.

`verify` replays a plan on abstract storages. `verify_graph` checks each call of a graph. `verify_rewrite`
compares the graphs before and after a pass that must not change what is computed. `verify_training` checks
the rules of a training step: which gradients there are, and which parameters they update.

The verifier shares two things with the code that it checks: the data (Graph, Call, Value, Plan), and
`run_on_meta`, which finds the results of a layer and the storages that they share. A layer that behaves
differently on meta tensors and real tensors misleads both; the reference executor therefore compares real
storages. The verifier shares no code with the passes, lifetimes, aliases or `schedule`: the import contract
"verifier" and tests/test_imports.py check that.
"""

from __future__ import annotations

from graphnet.plan.verify.replay import verify, verify_graph
from graphnet.plan.verify.rewrite import verify_rewrite
from graphnet.plan.verify.training import RULES, verify_training
from graphnet.plan.verify.waits import missing_waits

__all__ = [
    "RULES",
    "missing_waits",
    "verify",
    "verify_graph",
    "verify_rewrite",
    "verify_training",
]
