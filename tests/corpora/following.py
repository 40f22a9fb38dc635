"""What each day of a table consists of, by following its commits."""

from dedp_assets.delta.commits import Commit, Snapshot, fingerprint_of


class Following:
    """The fingerprint of each day (`state`), followed by commits since a snapshot, and the days of the last commit."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.touched: set[str] = set()
        self.state: dict[str, int] = snapshot.fingerprints()
        self._files = {day: snapshot.logged_files(day) for day in snapshot.files}

    def take(self, commit: Commit) -> None:
        self.touched = set(commit.fingerprint_changes)
        self._files |= {day: commit.files_after(day, self._files.get(day, {})) for day in commit.actions}
        self.state = {day: fingerprint_of(files) for day, files in self._files.items() if files}
