"""Every Delta table below a folder, read by us and by deltalake, version by version.

    DELTA_CORPUS=/some/folder .venv/bin/python -m pytest -s tests/corpora/test_delta_corpus.py

Without DELTA_CORPUS it runs over a small corpus of its own. It prints what came out how often, and names every table
that fails, with what.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from dedp_assets.delta.commits import Commit, Snapshot
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.log_files import LOG
from dedp_assets.delta.problems import LogIncomplete, TableProblem, UnsupportedTable
from tests.corpora.following import Following

# An action of a commit: JSON of any form.
Action: TypeAlias = dict[str, Any]

# Of a long log the end: so many versions.
VERSIONS = 60
DAYS = [f"2024-01-0{number}" for number in range(1, 8)]


@dataclass
class Outcomes:
    """How often each outcome occurred, and each disagreement with the table that shows it."""

    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def fail(self, table: Path, what: str) -> None:
        self.wrong.append(f"{table}: {what}")


def test_every_table_of_a_corpus_is_read_as_deltalake_reads_it_or_refused(tmp_path: Path) -> None:
    given = os.environ.get("DELTA_CORPUS")
    corpus = Path(given) if given else own_corpus(tmp_path / "corpus")
    outcomes = Outcomes()
    tables = sorted(log.parent for log in corpus.rglob(LOG) if log.is_dir())
    assert tables, f"there is no folder {LOG} below {corpus}"
    for number, table in enumerate(tables):
        check(table, outcomes)
        copy = by_day(table, tmp_path / "by day" / str(number))
        if copy:
            outcomes.seen["tables of other partitions, read as if they had days"] += 1
            check(copy, outcomes, named=table)
            shutil.rmtree(copy)
    print(f"\n{len(tables)} tables below {corpus}")
    for what, number in sorted(outcomes.seen.items()):
        print(f"{number:7} {what}")
    assert not outcomes.wrong, "\n".join([f"{len(outcomes.wrong)} of {len(tables)} tables, at least:", *outcomes.wrong])
    if given is None:
        assert not {*EXPECTED} - {*outcomes.seen}


def by_day(table: Path, copy: Path) -> Path | None:
    """A copy of a table that has other partitions than days: its commits as they are, with all files in one day.

    None for a table that has days, and for one whose commits are not all there.
    """
    try:
        columns = DeltaTable(str(table)).metadata().partition_columns
        if len(columns) == 1 or versions_of(table) != [*range(len(versions_of(table)))]:
            return None
        commits = [actions_of(DeltaLog(str(table)), version) for version in versions_of(table)]
    except BaseException as error:  # deltalake panics at some tables
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return None
    shutil.copytree(
        table, copy, ignore=shutil.ignore_patterns("*.checkpoint.*", "*.crc", "_last_checkpoint", "_sidecars")
    )
    for version, actions in enumerate(commits):
        for kind, action in actions:
            if kind in ("add", "remove"):
                action["partitionValues"] = {"event_time": DAYS[0]}
                action.pop("stats", None)
            elif kind == "metaData" and "schemaString" in action:
                schema = json.loads(action["schemaString"])
                others = [column for column in schema["fields"] if column["name"] not in columns]
                day = {"name": "event_time", "type": "string", "nullable": True, "metadata": {}}
                action["schemaString"] = json.dumps(schema | {"fields": [*others, day]})
                action["partitionColumns"] = ["event_time"]
        lines = (f"{json.dumps({kind: action})}\n" for kind, action in actions)
        (copy / LOG / f"{version:020}.json").write_text("".join(lines), encoding="utf-8")
    return copy


def check(table: Path, outcomes: Outcomes, named: Path | None = None) -> None:
    """Compare one table's snapshots, the way from each to the next, and the rows of the latest."""
    named = named or table
    log = DeltaLog(str(table), partition_column=partition_column(table))
    snapshots: dict[int, Snapshot] = {}
    versions = versions_of(table)
    for version in [*versions[-VERSIONS:], None]:
        try:
            compare_files(log, version, snapshots, outcomes, versions)
        except Disagreement as found:
            outcomes.fail(named, f"version {'latest' if version is None else version}: {found}")
        except Exception as error:
            outcomes.fail(named, f"version {'latest' if version is None else version}: {type(error).__name__}: {error}")
    for step in (follow, compare_rows):
        try:
            step(log, snapshots, outcomes)
        except Disagreement as found:
            outcomes.fail(named, str(found))
        except Exception as error:
            outcomes.fail(named, f"{step.__name__}: {type(error).__name__}: {error}")


class Disagreement(Exception):
    pass


def partition_column(table: Path) -> str:
    """The only partition column; if there is not exactly one, any column, so that the table is refused."""
    with suppress(BaseException):  # deltalake panics at some tables
        columns = DeltaTable(str(table)).metadata().partition_columns
        if len(columns) == 1:
            return columns[0]
    return "event_time"


def versions_of(table: Path) -> list[int]:
    """Every version that the name of a file in the log contains."""
    names = [file.name for file in (table / LOG).iterdir()]
    return sorted({int(name[:20]) for name in names if re.match(r"\d{20}\.(json$|checkpoint\.)", name)})


def opened_by_deltalake(log: DeltaLog, version: int | None) -> DeltaTable | str:
    """The table, or the reason why deltalake can't open it."""
    try:
        return DeltaTable(log.uri, version=version)
    except BaseException as error:  # it panics at some tables
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return str(error)


def compare_files(
    log: DeltaLog, version: int | None, snapshots: dict[int, Snapshot], outcomes: Outcomes, versions: list[int]
) -> None:
    theirs = opened_by_deltalake(log, version)
    try:
        snapshot = log.snapshot(version)
    except UnsupportedTable as problem:
        outcomes.seen[f"refused: {kind_of(log, problem)}"] += version is None
        return
    except TableProblem as problem:
        latest = opened_by_deltalake(log, versions[-1]) if version is None and versions else ""
        if isinstance(theirs, DeltaTable) or isinstance(latest, DeltaTable):
            raise Disagreement(f"deltalake opens it, and it is refused: {problem}") from None
        outcomes.seen[f"opened by neither: {kind_of(log, problem)}"] += version is None
        return
    if isinstance(theirs, str):
        # By its commits, where deltalake fails at a checkpoint that is damaged or missing.
        replayed = replayed_files(log, snapshot.version)
        if replayed is None:
            outcomes.seen["versions read where deltalake fails, not compared"] += version is not None
        elif replayed != files_of(snapshot):
            raise Disagreement(f"{difference(files_of(snapshot), replayed)} than its commits say")
        else:
            outcomes.seen["versions read where deltalake fails, as their commits say"] += version is not None
    else:
        expected = {decoded(uri.removeprefix("file://")) for uri in theirs.file_uris()}
        found = {decoded(file) for files in snapshot.files.values() for file in files}
        if found != expected:
            raise Disagreement(f"{difference(found, expected)} than deltalake")
        if sum(map(len, snapshot.files.values())) != len(theirs.file_uris()):
            raise Disagreement("a file is there twice")
        outcomes.seen["versions with the files that deltalake has"] += version is not None
    outcomes.seen["tables read as of now"] += version is None
    snapshots[snapshot.version] = snapshot


def decoded(path: str) -> str:
    """A path without percent-encoding. For some characters, `file_uris` encodes again what the log has encoded."""
    return path if unquote(path) == path else decoded(unquote(path))


def difference(found: set[str], expected: set[str]) -> str:
    more, fewer = sorted(found - expected), sorted(expected - found)
    return f"{len(more)} files more ({', '.join(more[:3])}), {len(fewer)} fewer ({', '.join(fewer[:3])})"


def kind_of(log: DeltaLog, problem: TableProblem) -> str:
    """The text of a problem, without names and numbers that only this table has."""
    text = str(problem).replace(log.uri, "it")
    for known in (
        "deletionVectors",
        "columnMapping",
        "shallow clone",
        "is partitioned by",
        "partition column",
        "takes",
    ):
        if known in text:
            return re.sub(r"is partitioned by .*?;", "is partitioned by other columns;", text)[:100]
    return re.sub(r"/\S+|\d+", "...", text)[:100]


def files_of(snapshot: Snapshot) -> set[str]:
    return {file.removeprefix(f"{snapshot.root}/") for files in snapshot.files.values() for file in files}


def actions_of(log: DeltaLog, version: int) -> list[tuple[str, Action]]:
    """The actions of a commit, read without our code."""
    text = Path(log.uri, LOG, f"{version:020}.json").read_text(encoding="utf-8")
    return [item for line in text.split("\n") if line.strip() for item in json.loads(line).items()]


def replayed_files(log: DeltaLog, version: int) -> set[str] | None:
    """The files of a version, from all commits up to it; None if a commit is missing."""
    files: set[str] = set()
    try:
        for number in range(version + 1):
            actions = actions_of(log, number)
            files -= {unquote(action["path"]) for kind, action in actions if kind == "remove"}
            files |= {unquote(action["path"]) for kind, action in actions if kind == "add"}
    except (OSError, ValueError):
        return None
    return files


def follow(log: DeltaLog, snapshots: Mapping[int, Snapshot], outcomes: Outcomes) -> None:
    """Check that each commit leads from one snapshot to the next, and names the days that differ."""
    known: Following | None = None
    commits = iter_commits(log, min(snapshots, default=0) - 1)
    for version, commit in commits:
        after = snapshots.get(version)
        before = snapshots.get(version - 1) or (Snapshot("", -1, {}, log.uri) if version == 0 else None)
        if commit is None:
            outcomes.seen["commits that do not tell what they changed"] += 1
            known = None
        if commit is None or after is None or before is None:
            known = Following(after) if after else None
            continue
        known = known or Following(before)
        known.take(commit)
        if known.state != Following(after).state:
            raise Disagreement(f"commit {version} does not lead from the snapshot before it to its own")
        silent = [day for day in changed_days(before, after) if day not in known.touched]
        if silent:
            raise Disagreement(f"commit {version} does not name {', '.join(silent)}, which consist of other files now")
        unsaid = {day for day in changed_days(before, after) if day not in commit.changes}
        grown = [
            day
            for day in unsaid
            if None not in (both := (rows_of(before, day), rows_of(after, day))) and both[0] != both[1]
        ]
        if grown:
            raise Disagreement(f"commit {version} says nothing has changed in {', '.join(grown)}: they have other rows")
        outcomes.seen["commits that lead from one snapshot to the next"] += 1


def iter_commits(log: DeltaLog, after: int) -> Iterator[tuple[int, Commit | None]]:
    """Every commit in the log; None for a commit that does not say what it changed."""
    for version in [found for found in versions_of(Path(log.uri)) if found > after]:
        if not Path(log.uri, LOG, f"{version:020}.json").exists():
            continue
        try:
            commit = next(log.commits(version - 1, limit=1), None)
        except LogIncomplete:
            yield version, None
        except TableProblem:
            return
        else:
            if commit is None:
                raise Disagreement(f"commit {version} is there, and following the log it is not")
            yield version, commit


def changed_days(before: Snapshot, after: Snapshot) -> list[str]:
    days = sorted({*before.files, *after.files})
    return [day for day in days if before.files.get(day) != after.files.get(day)]


def rows_of(snapshot: Snapshot, day: str) -> int | None:
    """How many rows a day's files have; None if a file is missing."""
    try:
        return sum(int(pq.read_metadata(file).num_rows) for file in snapshot.files.get(day, ()))
    except OSError:
        return None


def compare_rows(log: DeltaLog, snapshots: Mapping[int, Snapshot], outcomes: Outcomes) -> None:
    if not snapshots:
        return
    latest = snapshots[max(snapshots)]
    table = opened_by_deltalake(log, latest.version)
    if isinstance(table, str):
        return
    per_day = [rows_of(latest, day) for day in latest.files]
    try:
        query = QueryBuilder().register("t", table).execute("SELECT count(*) AS n FROM t")
        expected = pa.table(query.read_all())["n"][0].as_py()
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        outcomes.seen["tables whose rows deltalake can't read"] += 1
        return
    if None in per_day:
        outcomes.seen["tables of which files are missing"] += 1
    elif sum(per_day) != expected:  # type: ignore[arg-type]
        raise Disagreement(f"{sum(per_day)} rows, and {expected} by deltalake")  # type: ignore[arg-type]
    else:
        outcomes.seen["tables with the rows that deltalake has, at the last version that is read"] += 1


# What the small corpus has to show, so that nothing of it goes missing unseen.
EXPECTED = [
    "tables read as of now",
    "tables with the rows that deltalake has, at the last version that is read",
    "versions with the files that deltalake has",
    "commits that lead from one snapshot to the next",
]
# A table that may not be read, and a word of the reason.
REFUSED = {
    "deletion_vector": "deletionVectors",
    "column_mapping": "columnMapping",
    "two_columns": "is partitioned by",
    "no_partitions": "is partitioned by",
    "numbered": "is of type long",
    "widened": "typeWidening",
    "clone": "shallow clone",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_would_be_read_wrong_is_refused_for_its_reason(tmp_path: Path, name: str) -> None:
    corpus = own_corpus(tmp_path / "corpus", only=name)
    with pytest.raises(UnsupportedTable, match=REFUSED[name]):
        DeltaLog(str(corpus / name), partition_column=partition_column(corpus / name)).snapshot()


def test_what_is_wrong_is_told_of_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison finds, for every table, a reader that forgets a file of each snapshot."""
    corpus = own_corpus(tmp_path / "corpus", only="appended")
    own_corpus(corpus / "more", only="appended")
    snapshot = DeltaLog.snapshot

    def forgetful(log: DeltaLog, version: int | None = None) -> Snapshot:
        right = snapshot(log, version)
        fewer = {day: files[1:] for day, files in right.files.items()}
        return Snapshot(right.table_id, right.version, fewer, right.root)

    monkeypatch.setattr(DeltaLog, "snapshot", forgetful)
    outcomes = Outcomes()
    for table in (corpus / "appended", corpus / "more" / "appended"):
        check(table, outcomes)
    assert {line.split(": version")[0] for line in outcomes.wrong} == {
        str(corpus / "appended"),
        str(corpus / "more" / "appended"),
    }
    assert "0 files more (), 1 fewer" in outcomes.wrong[0]


def own_corpus(folder: Path, only: str | None = None) -> Path:
    """A table for each function of WRITERS."""
    for name, write in WRITERS.items():
        if only in (None, name):
            (folder / name).mkdir(parents=True)
            write(str(folder / name))
    return folder


def rows(*days: str | None, kind: pa.DataType | None = None, **more: list[object]) -> pa.Table:
    """Three devices for each day."""
    times = [day if kind or day is None else date.fromisoformat(day) for day in days for _ in range(3)]
    number = len(times)
    columns = {"type": ["phone"] * number, "full_name": list("abc") * len(days), "version": ["1"] * number}
    return pa.table(
        {**columns, **{name: value * number for name, value in more.items()}, "event_time": pa.array(times, kind)}
    )


def append(uri: str, *days: str | None, **options: Any) -> None:
    """Append rows of days, or `data`. The other options are those of `write_deltalake`."""
    kind = options.pop("kind", None)
    data = options.pop("data", None) or rows(*days, kind=kind)
    write_deltalake(uri, data, mode="append", partition_by=options.pop("by", ["event_time"]), **options)


def commit(uri: str, *actions: Action) -> None:
    """Write a commit by hand, as the next version."""
    version = DeltaTable(uri).version() + 1
    Path(uri, LOG, f"{version:020}.json").write_text("".join(f"{json.dumps(action)}\n" for action in actions))


def first(uri: str, kind: str) -> Action:
    """The first action of a kind in the first commit."""
    return next(action for found, action in actions_of(DeltaLog(uri), 0) if found == kind)


def features(*names: str) -> Action:
    both = {"readerFeatures": list(names), "writerFeatures": list(names)}
    return {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **both}}


def removal(add: Action) -> Action:
    named = {name: add[name] for name in ("path", "partitionValues", "size")}
    return {"remove": {**named, "dataChange": True, "extendedFileMetadata": True, "deletionTimestamp": 0}}


def appended(uri: str) -> None:
    for day in DAYS[:4]:
        append(uri, day)
    append(uri, *DAYS[2:6])


def appended_as_text(uri: str) -> None:
    for day in [*DAYS[:2], "a day/with: odd%20 letters", None, "ü", "2024-1-1"]:
        append(uri, day, kind=pa.string())
    DeltaTable(uri).delete("event_time = 'ü'")


def deleted(uri: str) -> None:
    append(uri, *DAYS)
    DeltaTable(uri).delete("full_name = 'a' AND event_time = '2024-01-02'")
    DeltaTable(uri).delete("event_time = '2024-01-03'")
    DeltaTable(uri).update(new_values={"full_name": "z"}, predicate="full_name = 'b'")
    DeltaTable(uri).delete()
    append(uri, DAYS[0])


def overwritten(uri: str) -> None:
    append(uri, *DAYS)
    write_deltalake(uri, rows(DAYS[1]), mode="overwrite", predicate="event_time = '2024-01-02'")
    write_deltalake(uri, rows(*DAYS[:2]), mode="overwrite")


def optimized(uri: str) -> None:
    for _ in range(3):
        append(uri, *DAYS[:3])
    DeltaTable(uri).optimize.compact()
    append(uri, DAYS[0])
    DeltaTable(uri).optimize.z_order(["full_name"])


def restored(uri: str) -> None:
    append(uri, DAYS[0])
    append(uri, DAYS[0], DAYS[1])
    DeltaTable(uri).restore(0)
    append(uri, DAYS[2])


def merged(uri: str) -> None:
    append(uri, *DAYS[:3])
    table = DeltaTable(uri)
    merge = table.merge(rows(DAYS[0], DAYS[5]), "s.full_name = t.full_name AND s.event_time = t.event_time", "s", "t")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()


def with_checkpoints(uri: str) -> None:
    for day in DAYS:
        append(uri, day)
        if day in (DAYS[2], DAYS[4]):
            DeltaTable(uri).create_checkpoint()


def cleaned_up(uri: str) -> None:
    with_checkpoints(uri)
    for version in range(4):
        Path(uri, LOG, f"{version:020}.json").unlink()


def of_new_columns(uri: str) -> None:
    append(uri, DAYS[0])
    append(uri, data=rows(DAYS[0], DAYS[1], more=[1]), schema_mode="merge")
    write_deltalake(uri, rows(DAYS[3]), mode="overwrite", schema_mode="overwrite", partition_by=["event_time"])


def made_anew(uri: str) -> None:
    append(uri, *DAYS[:2])
    schema = rows(DAYS[0]).schema
    DeltaTable.create(uri, schema, mode="overwrite", partition_by=["event_time"])
    append(uri, DAYS[4])


def vacuumed(uri: str) -> None:
    append(uri, *DAYS[:2])
    DeltaTable(uri).delete("full_name = 'a'")
    DeltaTable(uri).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)


def deletion_vector(uri: str) -> None:
    # From the examples of Delta's protocol: rows 3, 4, 7, 11, 18 and 29 of some file, inline.
    inline = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"
    append(uri, *[DAYS[0]] * 10)
    add = first(uri, "add")
    vector = {"storageType": "i", "pathOrInlineDv": inline, "sizeInBytes": 40, "cardinality": 6}
    commit(uri, features("deletionVectors"))
    commit(uri, removal(add), {"add": add | {"deletionVector": vector}})


def column_mapping(uri: str) -> None:
    append(uri, DAYS[0])
    metadata = first(uri, "metaData")
    schema = json.loads(metadata["schemaString"])
    for number, column in enumerate(schema["fields"], start=1):
        column["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": column["name"]}
    mapping = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "4"}
    changed = {"schemaString": json.dumps(schema), "configuration": mapping}
    commit(uri, features("columnMapping"), {"metaData": metadata | changed})


def widened(uri: str) -> None:
    append(uri, DAYS[0])
    commit(uri, features("typeWidening"))


def clone(uri: str) -> None:
    append(uri, DAYS[0])
    add = first(uri, "add")
    commit(uri, {"add": add | {"path": f"file:///elsewhere/{add['path']}"}})


def statistics_again(uri: str) -> None:
    append(uri, *DAYS[:2])
    commit(uri, {"commitInfo": {}}, {"add": first(uri, "add") | {"dataChange": False}})


WRITERS: dict[str, Callable[[str], None]] = {
    write.__name__: write
    for write in (
        appended,
        appended_as_text,
        deleted,
        overwritten,
        optimized,
        restored,
        merged,
        with_checkpoints,
        cleaned_up,
        of_new_columns,
        made_anew,
        vacuumed,
        deletion_vector,
        column_mapping,
        widened,
        clone,
        statistics_again,
    )
} | {
    "two_columns": lambda uri: append(uri, DAYS[0], by=["event_time", "type"]),
    "no_partitions": lambda uri: append(uri, DAYS[0], by=[]),
    "numbered": lambda uri: append(uri, data=rows(DAYS[0], number=[1]), by=["number"]),
    "no table": lambda uri: Path(uri, LOG).mkdir(),
}
