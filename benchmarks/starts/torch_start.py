"""Starts a training of the paper's network in plain torch, as most people write it, and prints when.

Arguments: "eager" or "compile", and how many seconds to go on after the first step. Prints the time of the
first step's end and of each later one, in seconds since 1970, as JSON.
"""

import json
import sys
import time

import torch
from torch import nn

from benchmarks.torch_networks import paper


def main() -> None:
    mode, going_on_s = sys.argv[1], float(sys.argv[2])
    torch.manual_seed(0)
    network = paper()
    optimizer = torch.optim.SGD(network.parameters(), lr=10.0)
    criterion = nn.MSELoss()
    run = torch.compile(network) if mode == "compile" else network
    x, target = torch.rand(2, 32, 3, 32, 32)
    ends: list[float] = []
    while not ends or ends[-1] < ends[0] + going_on_s:
        optimizer.zero_grad()
        loss = criterion(run(x), target)
        loss.backward()
        optimizer.step()
        float(loss)
        ends.append(time.time())
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
