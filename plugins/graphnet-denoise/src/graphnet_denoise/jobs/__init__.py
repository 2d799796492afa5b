"""Jobs: many images from file to file, in parts where they are large.

sources     arguments -> images
targets     images -> jobs: a file to read and a file to write each
written     which format a result gets
streams     the standard input and output in place of files
cutting     a large picture -> blocks
opening     a file -> an open image, with its blocks and ranges
opened      an open image -> parts, tensors for a model
methods     a trained model, one of the included ones, or one trained on each image
engine      runs a method on parts, smaller ones if a device is out of memory
memory      how large parts may be
overlap     reading and writing while the network computes
loop        all of it, image by image
processes   the loop in several processes
reports     what a user and a program see of it
"""

from __future__ import annotations

from graphnet_denoise.jobs.loop import Loop
from graphnet_denoise.jobs.memory import Bound
from graphnet_denoise.jobs.methods import ByImage, ByModel, ByNoise, Method
from graphnet_denoise.jobs.processes import run_in_processes
from graphnet_denoise.jobs.reports import JsonReport, Report, Summary, TextReport
from graphnet_denoise.jobs.sources import STDIN, Found, Source, find_sources
from graphnet_denoise.jobs.streams import streamed
from graphnet_denoise.jobs.targets import Existing, Job, make_folders, plan_jobs, split_done
from graphnet_denoise.jobs.written import ending_for

__all__ = [
    "STDIN",
    "Bound",
    "ByImage",
    "ByModel",
    "ByNoise",
    "Existing",
    "Found",
    "Job",
    "JsonReport",
    "Loop",
    "Method",
    "Report",
    "Source",
    "Summary",
    "TextReport",
    "ending_for",
    "find_sources",
    "make_folders",
    "plan_jobs",
    "run_in_processes",
    "split_done",
    "streamed",
]
