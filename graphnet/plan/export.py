"""Export: write a plan as a Python file that imports only graphnet, torch and the plugins it uses.

    import torch

    from graphnet.builtin.kernels.aten.convolution import AtenConv2d
    ...
    aten_conv2d = AtenConv2d(stride=(2, 2), padding=(0, 0), ...)
    ...
    conv2d_1_forward = aten_conv2d.forward
    ...
    def step(x, target, lr, one, conv2d_1_weight, conv2d_1_bias): ...

The function is the one that every executor runs; the definitions that it uses come before it.
"""

from __future__ import annotations

import re
import sys
from types import MethodType

from graphnet.errors import SourceError
from graphnet.plan.codegen import generate, unique
from graphnet.plan.literal import Literals, instance_name
from graphnet.plan.plan import Plan, check_plan
from graphnet.sdk import Definition

_MAIN = """\
if __name__ == "__main__":  # one run on random numbers
    torch.manual_seed(0)
    drawn = [torch.rand(s.shape, device=s.device).to(s.dtype) for s in ARGUMENTS.values()]
    with torch.no_grad():
        for output in step(*drawn):
            print(tuple(output.shape), output.dtype, output.double().mean().item())
"""


def source(plan: Plan) -> str:
    """Write a plan as the text of a Python file.

    Raises SourceError if a definition cannot be imported, such as a class inside a function, InputError if
    this is no plan.

    >>> from graphnet import Model
    >>> "import torch" in source(Model({"layers": ["relu"]}).plan((1, 1, 2, 2)))
    True
    """
    check_plan(plan, "source")
    return _Writer(plan).write()


class _Writer(Literals):
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.source = generate(plan)
        self.taken = {"torch", "step", "ARGUMENTS", "drawn", "output", *self.source.namespace}
        self.classes: dict[type, str] = {}
        self.instances: dict[Definition, str] = {}
        self.made: list[str] = []

    def write(self) -> str:
        aliases: list[str] = []
        for name, value in self.source.namespace.items():
            if isinstance(value, MethodType) and isinstance(value.__self__, Definition):
                written = f"{self.instance(value.__self__)}.{value.__name__}"
            else:
                written = self.literal(value)
            aliases.append(f"{name} = {written}")
        arguments = [
            f'    "{name}": {self.literal(self.plan.values[value].spec)},  # {value}'
            for name, value in zip(self.parameters(), self.plan.arguments, strict=True)
        ]
        parts = [
            f'"""{self.title()}"""',
            "import torch\n\n" + "\n".join(self.imports()),
            "\n".join(self.made),
            "\n".join(aliases),
            "\n".join(["ARGUMENTS = {  # what step takes", *arguments, "}"]),
            "\n" + self.source.text.rstrip(),
            "\n" + _MAIN,
        ]
        return "\n\n".join(parts)

    def title(self) -> str:
        steps = len(self.plan.steps)
        text = (
            f"A plan of {steps} steps, written by graphnet: `step` runs it under torch.no_grad()."
        )
        if self.plan.prelude is None:
            return text
        count = len(self.plan.prelude.outputs)
        return (
            f"{text}\n\nThe last {count} arguments are computed ahead from weights: "
            f"graphnet.source(plan.prelude) says how."
        )

    def parameters(self) -> list[str]:
        """The names of the function's arguments, in order."""
        head = self.source.text.partition("(")[2].partition("):")[0]
        return re.findall(r"\w+", head)

    def imports(self) -> list[str]:
        modules: dict[str, list[str]] = {}
        for cls, name in self.classes.items():
            own = cls.__qualname__
            modules.setdefault(cls.__module__, []).append(
                own if own == name else f"{own} as {name}"
            )
        return [
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(modules.items())
        ]

    def instance(self, definition: Definition) -> str:
        """The name of a definition in the file; equal definitions share one name."""
        if definition not in self.instances:
            name = unique(instance_name(type(definition)), self.taken)
            self.instances[definition] = name
            self.made.append(f"{name} = {self.literal(definition)}")
        return self.instances[definition]

    def named(self, cls: type) -> str:
        """The name of a class in the file. Raises SourceError if the class cannot be imported."""
        if cls not in self.classes:
            module = sys.modules.get(cls.__module__)
            if cls.__module__ == "__main__" or getattr(module, cls.__qualname__, None) is not cls:
                raise SourceError(
                    f"{cls.__module__}.{cls.__qualname__} cannot be imported, so the plan cannot be "
                    f"written as a file. Define the class at the top of a module that can be imported."
                )
            self.classes[cls] = unique(cls.__qualname__, self.taken)
        return self.classes[cls]
