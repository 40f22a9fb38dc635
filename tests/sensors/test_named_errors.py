"""Which notes of a tick are errors that somebody has to mend: a folder that can't be read, and not an empty one."""

from pathlib import Path

import pytest

from dedp_assets.errors import ErrorNote
from dedp_assets.isolated_sequencer.loader.landing import landing_folder
from dedp_assets.landing.arrivals import Cursor, Situation, plan_arrivals
from dedp_assets.landing.dated import scan_landing
from dedp_assets.landing.directories import Directory, scan_directory
from sensors.ticks import errors_first


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file at the place of a folder: not even root can list it."""
    (tmp_path / "there").write_text("")
    return tmp_path / "there"


def test_a_landing_folder_that_can_not_be_listed_is_an_error_and_one_that_is_not_there_yet_is_none() -> None:
    folder = landing_folder()
    (missing,) = scan_landing(folder).problems
    assert not isinstance(missing, ErrorNote)
    folder.path.parent.mkdir(parents=True)
    folder.path.write_text("")
    assert all(isinstance(problem, ErrorNote) for problem in scan_landing(folder).problems)


def test_a_file_of_a_day_that_can_not_be_taken_is_an_error_and_one_with_a_wrong_name_is_none() -> None:
    folder = landing_folder()
    folder.file_of("2024-01-02").mkdir(parents=True)
    (folder.path / "2024-01-03").mkdir()
    (folder.path / "2024-01-03" / "other.csv").write_text("")
    found = {problem.partition("/")[0]: isinstance(problem, ErrorNote) for problem in scan_landing(folder).problems}
    assert found == {"2024-01-02": True, "2024-01-03": False}


@pytest.mark.parametrize("name", ["there", "gone"])
def test_a_watched_directory_is_an_error_in_each_tick_as_long_as_it_can_not_be_read(file: Path, name: str) -> None:
    directory, cursor = Directory("north", file.with_name(name)), Cursor()
    for now in (0.0, 1.0, 60.0):
        scans = {"north": scan_directory(directory)} if now != 1.0 else {}
        plan = plan_arrivals([directory], scans, {}, {}, cursor, Situation(now, (), 1, 1))
        assert [isinstance(note, ErrorNote) for note in plan.notes] == [True]
        cursor, problem = Cursor.from_json(plan.cursor.to_json())
        assert problem == ""


def test_errors_come_first_and_the_others_stay_in_their_order() -> None:
    assert errors_first(["b", ErrorNote("d"), "a", ErrorNote("c")]) == ["d", "c", "b", "a"]
