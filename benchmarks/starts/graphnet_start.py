"""Starts a training of the paper's network in graphnet and prints when, as torch_start.py does.

Arguments: the model's file, the executor, and how many seconds to go on after the first step.
"""

import json
import sys
import time

import torch

import graphnet as gn


def main() -> None:
    file, executor, going_on_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
    program = gn.load(file).compile(
        (32, 3, 32, 32), loss="mse", optimizer=gn.SGD(lr=10.0), executor=executor, device="cpu"
    )
    x, target = torch.rand(2, 32, 3, 32, 32)
    ends: list[float] = []
    while not ends or ends[-1] < ends[0] + going_on_s:
        float(program.step(x, target))
        ends.append(time.time())
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
