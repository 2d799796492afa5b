"""Verify: whether running a plan computes what its graph says.

`verify` replays a plan on abstract storages, `verify_graph` checks each call of a graph by itself, and
`verify_rewrite` compares two graphs before and after a pass that must not change the values.
"""

from __future__ import annotations

from graphnet.plan.verify.replay import verify, verify_graph, verify_rewrite

__all__ = ["verify", "verify_graph", "verify_rewrite"]
