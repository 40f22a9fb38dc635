"""Processes that read the integrator's own tables end in order."""

import os
import subprocess
import sys
from datetime import date, timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from dedp_assets.late_data_integrator import contract, state
from dedp_assets.late_data_integrator.device_counts import SCHEMA, DeviceCounts, InputVersion

DAYS = [date(2024, 1, 1) + timedelta(days=number) for number in range(50)]

# Each process reads as a run, a tick and `dedp late` do, and ends. It is a fork of one that has imported all of it and
# has opened nothing. Prints how often which exit code came.
_READ_AND_END = """
import os, sys
from collections import Counter
import deltalake, pyarrow.dataset
from dedp_assets.late_data_integrator import contract, state, tables
from dedp_assets.resources_from_settings import LakeFromSettings

ended = Counter()
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        counts = tables.open_counts(LakeFromSettings())
        assert counts.rows_counted(["2024-01-02", "2024-01-03"]) == {"2024-01-02": 1, "2024-01-03": 2}
        assert len(counts.all_recorded()) == 1
        assert state.read_state(contract.uri(contract.PARTITIONS_STATE), {})
        sys.exit()
    ended[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])] += 1
print(dict(ended))
"""


@pytest.mark.slow
def test_a_process_that_reads_and_ends_ends_in_order() -> None:
    """With deltalake's own file system, about one in fifteen aborts."""
    counts_uri, state_uri = contract.uri(contract.DEVICE_COUNTS), contract.uri(contract.PARTITIONS_STATE)
    rows = pa.table([DAYS, ["phone"] * 50, ["a"] * 50, [None] * 50, list(range(50))], schema=SCHEMA)
    write_deltalake(counts_uri, rows, partition_by=["event_time"])
    counts = DeviceCounts.open(counts_uri, {})
    counts.record("a-table", {"2024-01-02": InputVersion(1, 1)})
    DeltaTable(counts_uri).create_checkpoint()
    write_deltalake(state_uri, pa.table([["event_time=2024-01-02"], [False], [1]], schema=state.SCHEMA))
    command = [sys.executable, "-c", _READ_AND_END, "40"]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("{0: 40}\n", 0), done.stderr
