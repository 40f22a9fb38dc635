"""Random histories of many directories: writers, ticks, runs that fail or take long, lost cursors, lost ledgers.

At rest the ledger has every file in its present version. No version is taken twice, but for what a lost ledger costs.
"""

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from dedp_assets.landing import arrivals
from dedp_assets.landing.arrivals import (
    Cursor,
    Known,
    Plan,
    Request,
    Situation,
    directories_to_scan,
    files_to_compare,
    plan_arrivals,
    unchanged_since,
)
from dedp_assets.landing.directories import NOTHING, Directory, Scan, Scanner
from dedp_assets.landing.versions import FileVersion

HISTORIES = int(os.environ.get("FILE_SCHEDULES", "20"))
STEPS = 60


class Deployment:
    """Directories in memory, a ledger, and ticks whose runs take their time."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.directories = [self._directory(f"c{number}") for number in range(dice.randrange(1, 8))]
        self.files: dict[str, dict[str, FileVersion]] = {each.client: {} for each in self.directories}
        self.markers: dict[str, dict[str, int]] = {each.client: {} for each in self.directories}
        self.ledger: dict[str, dict[str, Known]] = {}
        self.backup: dict[str, dict[str, Known]] = {}
        self.cursors = [Cursor()]
        self.runs: list[tuple[Request, float]] = []
        self.taken: Counter[tuple[str, str, FileVersion]] = Counter()
        self.now, self.changes, self.has_lost_ledger = 1_000_000.0, 0, False
        self.broken: set[str] = set()

    def _directory(self, client: str) -> Directory:
        return Directory(
            client,
            Path("/") / client,
            completeness=self.dice.choice(("settled", "marker", "renamed")),
            settle_seconds=self.dice.choice((0.0, 2.0, 7.0)),
            marker=self.dice.choice(("_SUCCESS", "{file}.done")),
            priority=self.dice.randrange(-3, 4),
            timeout_seconds=self.dice.choice((None, 30.0)),
        )

    def write(self, client: str, file: str) -> None:
        """A file comes, grows, is replaced, or is touched."""
        self.changes += 1
        before = self.files[client].get(file)
        size = self.dice.choice((0, 1, 5, before.size if before else 3))
        inode = before.inode if before and self.dice.random() < 0.5 else self.changes
        modified = before.modified_ns if before and self.dice.random() < 0.3 else self.changes
        self.files[client][file] = FileVersion(size, modified, self.changes, inode)

    def mark(self, directory: Directory) -> None:
        """The client says that its files are complete."""
        self.changes += 1
        for file in self.files[directory.client]:
            self.markers[directory.client][directory.marker_of(file)] = self.changes

    def scan(self, directory: Directory) -> Scan:
        client = directory.client
        if client in self.broken:
            return Scan(failure=f"{client} is gone")
        if not self.files[client] and not self.markers[client]:
            return NOTHING
        return Scan(dict(self.files[client]), dict(self.markers[client]))

    def tick(self, cursor: Cursor, free_runs: int = 4) -> Plan:
        due = directories_to_scan(self.directories, cursor, self.now)
        again = {each.client for each in due if self.dice.random() < 0.2}
        reached = [each for each in due if self.dice.random() < 0.95]  # one is not reached in time
        scans = Scanner(self.scan).scan_all(reached, is_unchanged=unchanged_since(cursor, again))
        compared = files_to_compare(due, scans, cursor, again)
        known = {client: dict(self.ledger.get(client, {})) for client in compared}
        in_progress = {(each.directory.client, each.file) for run, _ in self.runs for each in run.arrivals}
        situation = Situation(self.now, in_progress, free_runs)
        return plan_arrivals(self.directories, scans, compared, known, cursor, situation)

    def end_runs(self, fails: float) -> None:
        for run, ends in [each for each in self.runs if each[1] <= self.now]:
            self.runs.remove((run, ends))
            for arrival in run.arrivals:
                if self.dice.random() < fails:
                    break  # killed: the rest of its files is not taken
                client, file = arrival.directory.client, arrival.file
                # As a run does: it takes the version that lies there, unless the ledger has it.
                version = self.files[client].get(file)
                known = self.ledger.get(client, {}).get(file)
                if version is None or not version.size or (known and known.version == arrival.version):
                    continue
                self.taken[client, file, version] += 1
                self.ledger.setdefault(client, {})[file] = Known(version, "")

    def step(self) -> None:
        dice = self.dice
        self.now += dice.choice((1.0, 5.0, 5.0, 40.0))
        directory = dice.choice(self.directories)
        client, file = directory.client, f"{dice.randrange(3)}.csv"
        what = dice.random()
        if what < 0.35:
            self.write(client, file)
        elif what < 0.42:
            self.files[client].pop(file, None)
        elif what < 0.55:
            self.mark(directory)
        elif what < 0.60:
            self.broken ^= {client}
        elif what < 0.62:
            self.backup = {name: dict(files) for name, files in self.ledger.items()}
        elif what < 0.63:
            self.ledger = {name: dict(files) for name, files in self.backup.items()}
            self.has_lost_ledger = True
        elif what < 0.66:
            self.cursors.append(Cursor())  # lost
        elif what < 0.69:
            self.cursors.append(dice.choice(self.cursors))  # a daemon died before it saved the last one
        self.end_runs(fails=0.2)
        plan = self.tick(self.cursors[-1], free_runs=dice.randrange(0, 4))
        self.runs += [(request, self.now + dice.choice((0.0, 3.0, 100.0))) for request in plan.requests]
        self.cursors.append(Cursor.from_json(plan.cursor.to_json())[0])

    def rest(self) -> None:
        """Nothing happens any more but ticks and runs, and everything works."""
        self.broken.clear()
        for directory in self.directories:
            self.mark(directory)
        for _ in range(400):
            self.now += 5.0
            self.end_runs(fails=0.0)
            plan = self.tick(self.cursors[-1])
            self.runs += [(request, self.now) for request in plan.requests]
            self.cursors.append(plan.cursor)


@pytest.fixture(params=[arrivals.MAX_WAITING_FILES, 2], ids=["room for all", "room for two"])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many files the cursor has room for."""
    monkeypatch.setattr(arrivals, "MAX_WAITING_FILES", request.param)


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("seed", range(0, HISTORIES, 20))
def test_whatever_happens_each_version_is_taken_and_none_twice(seed: int) -> None:
    for number in range(seed, min(seed + 20, HISTORIES)):
        deployment = Deployment(random.Random(number))
        for _ in range(STEPS):
            deployment.step()
        deployment.rest()
        lying = {
            (client, file): version
            for client, files in deployment.files.items()
            for file, version in files.items()
            if version.size
        }
        known = {key: deployment.ledger.get(key[0], {}).get(key[1]) for key in lying}
        late = [key for key, version in lying.items() if known[key] is None or known[key].version != version]  # type: ignore[union-attr]
        assert late == [], f"history {number}: at rest these are not in the ledger as they lie there"
        if not deployment.has_lost_ledger:
            twice = [key for key, times in deployment.taken.items() if times > 1]
            assert twice == [], f"history {number}: taken twice"
