"""Verify: whether running a plan computes what its graph says.

`verify` replays a plan on abstract storages, `verify_graph` checks each call of a graph by itself, and
`verify_rewrite` compares two graphs before and after a pass that must not change the values.

The verifier and what it checks share this: the data (Graph, Call, Value, Plan) with its look-ups, and
`run_on_meta`, by which both learn what a layer returns and what that shares storage with. So a layer that
does otherwise on meta tensors than on real ones deceives both; the reference executor compares the real
storages. Nothing is shared with the order of steps and what they free, lifetimes, aliases, in place and
recompute, nor with any other pass: the import contract "verifier" and tests/test_imports.py hold that.
"""

from __future__ import annotations

from graphnet.plan.verify.replay import verify, verify_graph, verify_rewrite

__all__ = ["verify", "verify_graph", "verify_rewrite"]
