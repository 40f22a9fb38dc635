"""Every CSV file below a folder, loaded as devices files: each line is a row, or is set aside with exactly its bytes.

    CSV_CORPUS=/some/folder .venv/bin/python -m pytest -s tests/corpora/test_csv_corpus.py

Files of other columns are refused for their header. So each is loaded as it is, and also with a devices header before
its lines, and with its commas as the delimiter. Without CSV_CORPUS it runs over a small corpus of its own. It prints
what came out how often, and names every file that fails, with what.
"""

import csv
import os
from collections import Counter
from collections.abc import Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.delimited.header import UnusableFile
from dedp_assets.delimited.lines import MAX_LINE_BYTES
from dedp_assets.isolated_sequencer.aggregator.loading import LoadReport, load_file

HEADER = b"type;full_name;version"
LOAD = "20240101"
MARK = "\ufeff"


@dataclass
class Outcomes:
    """What came out, how often; and what is wrong, with the file that shows it."""

    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@pytest.mark.slow
def test_every_line_of_a_corpus_is_a_row_or_set_aside_as_it_came(tmp_path: Path, database: Connection) -> None:
    given = os.environ.get("CSV_CORPUS")
    corpus = Path(given) if given else own_corpus(tmp_path / "corpus")
    files = sorted(file for file in corpus.rglob("*") if file.is_file() and is_text_table(file))
    assert files, f"there is no CSV file below {corpus}"
    outcomes = Outcomes()
    loads = 0
    for file in files:
        for how, content in variants(file.read_bytes()).items():
            loads += 1
            try:
                check(database, content, tmp_path / "dataset.csv", outcomes)
            except Disagreement as found:
                outcomes.wrong.append(f"{file} ({how}): {found}")
            except Exception as error:
                outcomes.wrong.append(f"{file} ({how}): {type(error).__name__}: {error}")
        forget(database)
    print(f"\n{loads} loads of {len(files)} files below {corpus}")
    for what, number in sorted(outcomes.seen.items()):
        print(f"{number:9} {what}")
    assert not outcomes.wrong, "\n".join([f"{len(outcomes.wrong)} of {loads} loads:", *outcomes.wrong])
    if given is None:
        assert not {*EXPECTED} - {*outcomes.seen}


def is_text_table(file: Path) -> bool:
    """By its name: `a.csv`, `a.tsv`, `a.csv.txt`, and not `a.csv.gz`."""
    return any(suffix in (".csv", ".tsv", ".txt", ".dat", ".data") for suffix in file.suffixes[-1:])


def variants(content: bytes) -> dict[str, bytes]:
    """The same file in ways that get past the header: all of its lines are lines of a devices file then."""
    return {
        "as it is": content,
        "below a header": HEADER + b"\n" + content,
        "below a header, with its commas as the delimiter": HEADER + b"\r\n" + content.replace(b",", b";"),
    }


class Disagreement(Exception):
    pass


def check(database: Connection, content: bytes, path: Path, outcomes: Outcomes) -> None:
    """Load it, and account for each of its lines."""
    path.write_bytes(content)
    before = loaded(database)
    try:
        report = load_file(database, LOAD, path)
    except UnusableFile as refused:
        if loaded(database) != before:
            raise Disagreement("it is refused, and the earlier load has changed") from refused
        outcomes.seen[f"refused: {kind_of(refused)}"] += 1
        return
    rows, aside = loaded(database)
    lines = lines_of(content)
    account(lines, rows, aside)
    reported(lines, rows, aside, report)
    outcomes.seen["loaded"] += 1
    outcomes.seen["lines that are rows"] += len(rows)
    for reason, number in Counter(reason for reason, _ in aside.values()).items():
        outcomes.seen[f"lines set aside: {reason}"] += number


def kind_of(refused: UnusableFile) -> str:
    text = str(refused)
    kinds = ("is delimited by", "has the first line", "is empty", "has a header and no lines")
    return next((kind for kind in kinds if kind in text), text.split(";")[0].partition("dataset.csv ")[2][:60])


def lines_of(content: bytes) -> dict[int, bytes]:
    """The lines after the header by their numbers, without line ends: a reader as simple as can be."""
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return {number: line for number, line in enumerate(lines, start=1) if number > 1}


def account(lines: dict[int, bytes], rows: list[tuple[Any, ...]], aside: dict[int, tuple[str, bytes]]) -> None:
    """Each line is in one of both, once and as it came; and in neither is anything else."""
    strangers = sorted(aside.keys() - lines.keys())
    if strangers:
        raise Disagreement(f"there are no lines {strangers[:5]}, which are set aside")
    altered = [number for number, (_, raw) in aside.items() if raw not in as_kept(lines[number])]
    if altered:
        raise Disagreement(f"{len(altered)} lines are set aside with other bytes, such as {altered[0]}")
    expected = Counter(values_of(line) for number, line in lines.items() if number not in aside)
    found = Counter(tuple(value.removeprefix(MARK) for value in row) for row in rows)
    if expected != found:
        lost, more = expected - found, found - expected
        raise Disagreement(
            f"{lost.total()} lines are neither rows nor set aside, such as {next(iter(lost), None)!r:.200}; "
            f"{more.total()} rows come from no line, such as {next(iter(more), None)!r:.200}"
        )
    twice = [values for values, number in found.items() if number > 1]
    if twice:
        raise Disagreement(f"{len(twice)} rows are there more than once, such as {twice[0]!r:.200}")
    wrong = [number for number, (reason, raw) in aside.items() if reason == "duplicate" and values_of(raw) not in found]
    if wrong:
        raise Disagreement(f"line {wrong[0]} is set aside as a duplicate of a row that is not there")


def as_kept(line: bytes) -> tuple[bytes, ...]:
    """The bytes of a line without its end, which may be CR LF; of one that is too long, the beginning."""
    return line, line.removesuffix(b"\r"), *([line[:MAX_LINE_BYTES]] if len(line) > MAX_LINE_BYTES else [])


def values_of(line: bytes) -> tuple[str, ...]:
    """The values of a line, by Python's reader."""
    try:
        text = line.removesuffix(b"\r").decode("utf-8")
        [values] = csv.reader([text], delimiter=";", strict=True)
    except (ValueError, csv.Error) as error:
        raise Disagreement(f"the line {line!r:.200} can't be read ({error}), and is not set aside") from None
    return tuple(value.removeprefix(MARK) for value in values)


def reported(lines: Sized, rows: Sized, aside: dict[int, tuple[str, bytes]], report: LoadReport) -> None:
    counted = (report.lines_read, report.rows_loaded, report.rows_quarantined)
    if counted != (len(lines), len(rows), len(aside)):
        raise Disagreement(f"lines, rows, set aside: {counted} by the report; {(len(lines), len(rows), len(aside))}")
    if report.reasons != Counter(reason for reason, _ in aside.values()):
        raise Disagreement(f"the report says {report.reasons}")


def loaded(database: Connection) -> tuple[list[tuple[Any, ...]], dict[int, tuple[str, bytes]]]:
    """The rows of the load, and by their numbers the lines that are set aside, with the reason."""
    with database, database.cursor() as cursor:
        cursor.execute("SELECT type, full_name, version FROM dedp.devices_raw WHERE load_id = %s", [LOAD])
        rows = cursor.fetchall()
        cursor.execute("SELECT line_number, reason, raw_line FROM dedp.devices_quarantine WHERE load_id = %s", [LOAD])
        return rows, {number: (reason, bytes(raw)) for number, reason, raw in cursor.fetchall()}


def forget(database: Connection) -> None:
    """Let the next file's first load be a new one."""
    with database, database.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS dedp_loads.devices_raw_{LOAD}")
        cursor.execute("DELETE FROM dedp.devices_quarantine")
        cursor.execute("DELETE FROM dedp.devices_loads")


# What the small corpus has to show, so that nothing of it goes missing unseen.
EXPECTED = [
    "loaded",
    "lines that are rows",
    *(
        f"lines set aside: {reason}"
        for reason in (
            "NUL byte",
            "carriage return",
            "duplicate",
            "empty line",
            "extra field",
            "line too long",
            "misplaced quote",
            "missing field",
            "missing value",
            "not UTF-8",
            "unclosed quote",
            "value too long",
        )
    ),
    "refused: has the first line",
    "refused: is delimited by",
    "refused: is empty",
]
GOOD = b"phone;galaxy;1"


def own_corpus(folder: Path) -> Path:
    """Files with each kind of dirt that we know of."""
    folder.mkdir()
    for name, content in dirty_files().items():
        (folder / f"{name}.csv").write_bytes(content)
    return folder


def dirty_files() -> dict[str, bytes]:
    bodies = {
        "clean": b"phone;galaxy;1\nphone;galaxy;2\n",
        "no last line end": b"phone;galaxy;1\nphone;galaxy;2",
        "crlf": b"phone;galaxy;1\r\nphone;galaxy;2\r\n",
        "mixed ends": b"a;b;1\r\na;b;2\na;b;3\r\r\na;b;4\n\ra;b;5\n",
        "carriage returns inside": b'a;b\rc;1\n"a;b\r";2\n' + GOOD,
        "empty lines": b"\n\na;b;1\n\n\r\n\n" + GOOD + b"\n\n",
        "blanks": b" ;b;1\n a ;b ; 1\n\t;b;1\n\xc2\xa0;b;1\n\xe3\x80\x80;\xe2\x80\x8b;1\n" + GOOD,
        "fields": b"a\na;b\na;b;c;d\n;;\n;;;\n;b;c\na;;c\na;b;\n" + GOOD,
        "quotes": b'"a";"b";"1"\n"a;b";"c""d";2\n"""";"""";""""\n"";b;c\n"a"b;c;d\na"b;c;d\n"a;b;c\n a;"b;c\n"\n""\n',
        "a line break in quotes": b'"a\nb";c;1\n"a;\n;b";c\n' + GOOD,
        "quotes that never close": b'a;"b;1\n' + b"".join(b"a;b;%d\n" % n for n in range(50)) + b'a;b";1\n',
        "backslashes": b"a\\;b;1\n\\N;\\N;\\N\na\\nb;c\\\\;\\.\n\\.\na;b;\\.\n" + GOOD,
        "end of copy": b"\\.\n\\.;\\.;\\.\n" + GOOD,
        "nul": b"a\0;b;1\n\0\n\0;\0;\0\n" + GOOD,
        "latin-1": b"phone;caf\xe9;1\nphone;\xff\xfe;2\n" + GOOD,
        "utf-8": "téléphone;Ω 😀;1\nphone;e\u0301;1\nphone;\u00e9;1\nphone;\u2028;1\na;\u0085;\ud7ff\n".encode(),
        "broken utf-8": b"a;\xc3;1\na;\xed\xa0\x80;1\na;\xf4\x90\x80\x80;1\na;\xc0\xaf;1\na;b;\xf0\x9f\n" + GOOD,
        "a mark in the middle": b"a;b;1\n\xef\xbb\xbfa;b;2\n" + GOOD,
        "lengths": b"\n".join(
            [
                b"t" * 15 + b";b;1",
                b"t" * 16 + b";b;1",
                b"a;" + b"n" * 51 + b";1",
                b"a;b;" + b"v" * 41,
                b"a;b;" + b"v" * 40,
            ]
            + [("é" * 15 + ";" + "😀" * 50 + ";1").encode(), ("é" * 16 + ";b;1").encode(), GOOD]
        ),
        "long lines": b"a;" + b"x" * (1 << 20) + b";1\n" + GOOD + b"\n" + b"y" * (3 << 20) + b"\nz;z;z\n",
        "a long last line": GOOD + b"\n" + b"y" * (2 << 20),
        "a quote over blocks": GOOD + b'\n"' + b"quoted;\n" * 40_000 + b'";a;b\n',
        "duplicates": GOOD + b"\n" + (GOOD + b"\n") * 500 + b'"phone";galaxy;"1"\n' + GOOD + b"\r\n",
        "nearly duplicates": b"a;b;1\na;B;1\na;b ;1\n a;b;1\na;b;1 \na;b;01\n",
        "other controls": b"a\x01;b\x1b[31m;1\na\x7f;b\x0b;1\na\x1a;b;\x1a\n\x1a\n" + GOOD,
        "many": b"".join(b"type %d;device %d;%d\n" % (n % 7, n, n % 3) for n in range(6_000)),
        "many with dirt": b"".join(
            b"type %d;device %d;%d\n" % (n % 7, n % 900, n % 3) if n % 11 else b'bad "%d\xff\n' % n
            for n in range(6_000)
        ),
    }
    whole = {
        "empty": b"",
        "one line end": b"\n",
        "header only": HEADER + b"\n",
        "header without an end": HEADER,
        "header and an empty line": HEADER + b"\n\n" + GOOD,
        "a mark": b"\xef\xbb\xbf" + HEADER + b"\n" + GOOD + b"\n",
        "two marks": b"\xef\xbb\xbf\xef\xbb\xbf" + HEADER + b"\n" + GOOD + b"\n",
        "quoted header": b'"type";"full_name";"version"\r\n' + GOOD + b"\r\n",
        "commas": b"type,full_name,version\na,b,1\n",
        "tabs": b"type\tfull_name\tversion\na\tb\t1\n",
        "another header": b"type;name;version\na;b;1\n",
        "header in capitals": HEADER.upper() + b"\n" + GOOD + b"\n",
        "utf-16": ("\n".join([HEADER.decode(), GOOD.decode()])).encode("utf-16"),
        "joined files": HEADER + b"\n" + GOOD + b"\n" + HEADER + b"\na;b;2\n",
        "old macintosh": (HEADER + b"\n" + GOOD + b"\n").replace(b"\n", b"\r"),
    }
    return {name: HEADER + b"\n" + body for name, body in bodies.items()} | whole


def test_what_is_wrong_is_told_of_every_line(database: Connection) -> None:
    """The account of this test itself: a line that is lost, doubled or altered does not balance."""
    lines = lines_of(HEADER + b"\na;b;1\na;b;2\r\nbad\n")
    rows, aside = [("a", "b", "1"), ("a", "b", "2")], {4: ("missing field", b"bad")}
    account(lines, rows, aside)
    for wrong_rows, wrong_aside in (
        (rows[:1], aside),
        (rows + rows[:1], aside),
        (rows + [("a", "b", "3")], aside),
        ([("a", "b", "1"), ("a", "b", "two")], aside),
        (rows, {}),
        (rows, {4: ("missing field", b"bad ")}),
        (rows, aside | {5: ("empty line", b"")}),
        (rows, aside | {2: ("duplicate", b"a;b;1")}),
    ):
        with pytest.raises(Disagreement):
            account(lines, wrong_rows, wrong_aside)
