"""The VTC paper's real workload: 1,500 chats of 27 clients in ten minutes (its tables 2 and 3).

A client is one of the chat models of the arena, the lengths are those of its conversations. The
largest client sends a fifth of the requests. loadtests/data/README.md has source and licence.
"""

from __future__ import annotations

from loadtests.data import data_file
from loadtests.workloads.csv_file import read_csv
from loadtests.workloads.workload import Workload


def arena() -> Workload:
    """Return the trace, request for request."""
    return read_csv(data_file("arena_trace.csv.gz"), name="arena")
