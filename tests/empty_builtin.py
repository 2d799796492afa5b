"""A built-in plugin with nothing in it but a schedule: what the core is without its layers."""

from graphnet.hookspecs import Register, hookimpl
from graphnet.optim import ConstantSchedule


@hookimpl
def graphnet_schedules(register: Register) -> None:
    register("constant", ConstantSchedule)
