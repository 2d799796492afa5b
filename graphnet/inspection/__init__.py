"""Inspection: looks at plans and steps: report, table, page, step timing, gradients, non-finite values.

A Plan or Model comes in; data and text for people go out, nothing is changed. It imports model and below.
"""

from __future__ import annotations

from graphnet.inspection.gradients import Gradients
from graphnet.inspection.measure import measure
from graphnet.inspection.measure_network import measure_network
from graphnet.inspection.nonfinite import first_nonfinite
from graphnet.inspection.page import Heading, page
from graphnet.inspection.report import breakdown, to_data
from graphnet.inspection.step_model import StepTime, predict_step
from graphnet.inspection.step_timing import time_steps
from graphnet.inspection.table import WIDTH, explain, passes

__all__ = [
    "WIDTH",
    "Gradients",
    "Heading",
    "StepTime",
    "breakdown",
    "explain",
    "first_nonfinite",
    "measure",
    "measure_network",
    "page",
    "passes",
    "predict_step",
    "time_steps",
    "to_data",
]
