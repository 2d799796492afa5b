"""The layers for torch's operators, by which graphnet.from_torch makes a model of a module."""
