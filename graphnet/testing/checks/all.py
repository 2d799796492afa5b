"""All checks of layers, from basic to special, so that the first failure names the fault."""

from __future__ import annotations

from graphnet.testing.case import Case
from graphnet.testing.check import Check
from graphnet.testing.checks.accumulate import accumulates, executors
from graphnet.testing.checks.compiled import compiles, inductor
from graphnet.testing.checks.cost import cost
from graphnet.testing.checks.declared import (
    declared_errors,
    description,
    docstring,
    examples,
    input_count,
    json_schema,
)
from graphnet.testing.checks.expected import expected_values, starting_values
from graphnet.testing.checks.fields import fields_matter
from graphnet.testing.checks.folding import absorb, affine_map
from graphnet.testing.checks.gradients import (
    gradient_at_kinks,
    gradient_autograd,
    gradient_linear,
    gradient_numerical,
    nondifferentiable,
    random_replay,
)
from graphnet.testing.checks.kernel import (
    kernel_at_ties,
    kernel_equals_reference,
    kernel_names,
)
from graphnet.testing.checks.large import large_inputs
from graphnet.testing.checks.memory import own_memory
from graphnet.testing.checks.modes import inference, initializers
from graphnet.testing.checks.observed import (
    devices,
    dtypes,
    forward_observed,
    gradient_shapes,
    parameter_gradients,
)
from graphnet.testing.checks.parts import distributed
from graphnet.testing.checks.precision import (
    bfloat16,
    cuda,
    float16,
    float32,
    kept_rounded,
)
from graphnet.testing.checks.purity import (
    backward_pure,
    backward_repeats,
    data_dependent_shapes,
    forward_pure,
    forward_repeats,
    global_random,
    host_reads,
    interleaved_calls,
    runs,
    states_untouched,
)
from graphnet.testing.checks.sizes import (
    axes_of_one,
    batch_of_one,
    empty_batch,
    odd_sizes,
    ranks,
)
from graphnet.testing.checks.strides import (
    channels_last,
    expanded,
    noncontiguous,
    overwrites,
    pointwise,
)
from graphnet.testing.checks.usage import (
    gradient_of_one,
    same_tensor_twice,
    saves_used,
    unused_outputs,
    wanted,
)
from graphnet.testing.checks.window import window

CHECKS: tuple[Check[Case], ...] = (
    kernel_names,
    runs,
    docstring,
    examples,
    json_schema,
    description,
    input_count,
    declared_errors,
    # a function of its arguments
    host_reads,
    data_dependent_shapes,
    global_random,
    initializers,
    forward_pure,
    backward_pure,
    states_untouched,
    forward_repeats,
    backward_repeats,
    interleaved_calls,
    # shapes, dtypes, devices
    devices,
    forward_observed,
    dtypes,
    nondifferentiable,
    parameter_gradients,
    gradient_shapes,
    own_memory,
    distributed,
    saves_used,
    expected_values,
    starting_values,
    fields_matter,
    # the derivative
    random_replay,
    gradient_linear,
    gradient_numerical,
    gradient_autograd,
    gradient_at_kinks,
    large_inputs,
    wanted,
    unused_outputs,
    gradient_of_one,
    same_tensor_twice,
    accumulates,
    # declarations
    inference,
    affine_map,
    absorb,
    pointwise,
    window,
    overwrites,
    # other strides, sizes, dtypes, devices
    noncontiguous,
    channels_last,
    expanded,
    batch_of_one,
    odd_sizes,
    axes_of_one,
    ranks,
    empty_batch,
    float32,
    bfloat16,
    float16,
    kept_rounded,
    cuda,
    compiles,
    inductor,
    executors,
    cost,
    kernel_equals_reference,
    kernel_at_ties,
)
