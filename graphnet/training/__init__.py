"""Training: runs the steps of a training file, measures the model and keeps the run's folder.

A training file comes in; records, checkpoints and a model file go out. It imports
model, inspection and below.
"""

from __future__ import annotations

from graphnet.sdk import Decided, Epoch, Steps, Stopped
from graphnet.training.config import Job, read_job
from graphnet.training.on_loader import train
from graphnet.training.run_folder import RunFolder, checkpoints_in
from graphnet.training.saving import Saving
from graphnet.training.trainer import Trainer

__all__ = [
    "Decided",
    "Epoch",
    "Job",
    "RunFolder",
    "Saving",
    "Steps",
    "Stopped",
    "Trainer",
    "checkpoints_in",
    "read_job",
    "train",
]
