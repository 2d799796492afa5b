"""A built-in plugin with nothing in it but a schedule: what the core is without its layers."""

from graphnet.builtin.schedules import ConstantSchedule
from graphnet.sdk import Register, hookimpl


@hookimpl
def graphnet_schedules(register: Register) -> None:
    register("constant", ConstantSchedule)
