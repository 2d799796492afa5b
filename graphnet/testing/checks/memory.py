"""Check of the memory behind results."""

from __future__ import annotations

from torch import Tensor

from graphnet.testing.case import Case
from graphnet.testing.check import check
from graphnet.testing.leaves import leaves, source_of
from graphnet.testing.outcome import CheckFailure

_LARGER = 4  # a view of something that is not much larger costs less than a copy
_SMALL = 256  # bytes that nobody misses


@check
def own_memory(case: Case) -> None:
    """No result keeps a much larger storage alive, since a plan counts the result's own bytes."""
    arguments = case.arguments()
    results = case.forward(arguments)
    made = leaves(results)
    given = {**arguments, **results}
    if case.trainable:
        grads = case.grads(results)
        gradients = case.backward(arguments, results, grads)
        given |= grads
        made |= {
            f"gradient of {leaf}": gradient
            for leaf, gradient in leaves(gradients).items()
            if source_of(gradient, given) is None
        }
    by_storage: dict[int, dict[str, Tensor]] = {}
    for name, tensor in made.items():
        if source_of(tensor, arguments) is None:
            by_storage.setdefault(tensor.untyped_storage()._cdata, {})[name] = tensor
    for sharing in by_storage.values():
        needed = sum(tensor.numel() * tensor.element_size() for tensor in sharing.values())
        kept = next(iter(sharing.values())).untyped_storage().nbytes()
        if kept > _LARGER * needed + _SMALL:
            raise CheckFailure(
                f"expected {' and '.join(map(repr, sharing))} in {needed} bytes of memory, found a view "
                f"of {kept} bytes, which stay allocated as long as it. Return x.clone()."
            )
