"""The memory of a load does not depend on the size of the file."""

import subprocess
import sys
from pathlib import Path

import pytest
from psycopg2.extensions import connection as Connection

from tests.dedp_assets.isolated_sequencer.aggregator.loads import LOAD, OTHER, query
from tests.dedp_assets.isolated_sequencer.fixture_types import AssertExact

_MEASURE = """
import resource, sys
from pathlib import Path
import psycopg2
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
dsn, load_id, path = sys.argv[1:]
load_file(psycopg2.connect(dsn), load_id, Path(path))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_megabytes(dsn: str, load_id: str, path: Path) -> float:
    """The most memory that a fresh process had while it loaded `path`."""
    # Through a shell: a process starts with the peak of the one that started it, which is the test run's here.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", _MEASURE, dsn, load_id, str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(output) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def write_big_file(path: Path, megabytes: int, line: str) -> int:
    """Write a file of one good line and then lines `line % n`, and return how many."""
    count = (megabytes << 20) // len((line % 0).encode())
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("type;full_name;version\na;b;1\n")
        stream.writelines(line % n for n in range(count))
    return 1 + count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("small", "big", "line"),
    [
        pytest.param(4, 60, f"{'t' * 15};{'漢' * 20} %09d;{'v' * 40}\n", id="clean"),
        pytest.param(1, 12, f"{'x' * 990} %09d\n", id="bad lines"),
        pytest.param(1, 5, f"{'t' * 15};{'x' * 50}%.0s;{'v' * 40}\n", id="duplicates"),
    ],
)
def test_memory_does_not_grow_with_the_file(
    database: Connection, dsn: str, tmp_path: Path, assert_exact: AssertExact, small: int, big: int, line: str
) -> None:
    lines = write_big_file(tmp_path / "small", small, line)
    little = peak_megabytes(dsn, OTHER, tmp_path / "small")
    lines += write_big_file(tmp_path / "big", big, line)
    much = peak_megabytes(dsn, LOAD, tmp_path / "big")
    assert query(database, "SELECT sum(lines_read) FROM dedp.devices_loads") == [(lines,)]
    assert much - little < 15, f"{little:.0f} MB became {much:.0f} MB"
