"""What the supervisor of the system decides: when to start what has died, and how code locations are called."""

from pathlib import Path

import pytest

from dedp_assets import local_stack
from dedp_assets.local_stack.processes import DAEMON, commands
from dedp_assets.local_stack.supervision import ending, pause_seconds
from dedp_assets.local_stack.workspace import Location, locations, socket_of, sockets


def test_the_pauses_before_a_process_that_dies_again_and_again_grow_to_a_minute() -> None:
    assert [pause_seconds(deaths) for deaths in (1, 2, 3, 4, 7, 8, 1000)] == [0.5, 1, 2, 4, 32, 60, 60]


def test_an_ending_is_told_in_words() -> None:
    assert [ending(1), ending(-9)] == ["with exit code 1", "killed by signal 9 (SIGKILL)"]


def test_locations_have_the_names_that_dagster_gives_them_because_cursors_depend_on_these(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(
        "load_from:\n"
        "  - python_module: jobs.tides\n"
        "  - python_module: {module_name: jobs.winds, attribute: defs, working_directory: below}\n"
        "  - python_module: {module_name: jobs.rains, location_name: rains}\n"
        "  - python_file: below/clouds.py\n"
    )
    found = locations(workspace)
    assert [location.name for location in found] == ["jobs.tides", "jobs.winds:defs", "rains", "clouds.py"]
    assert found[0].options == ("--module-name", "jobs.tides", "--working-directory", str(tmp_path))
    assert found[1].options[-1] == str(tmp_path / "below")
    assert found[3].options[:2] == ("--python-file", str(tmp_path / "below" / "clouds.py"))


def test_our_locations_are_those_of_the_workspace_that_dagster_dev_reads() -> None:
    from dagster._core.workspace.load import location_origins_from_yaml_paths

    ours = {location.name for location in locations(local_stack.WORKSPACE)}
    origins = location_origins_from_yaml_paths([str(local_stack.WORKSPACE)])
    assert ours == {origin.location_name for origin in origins}


def test_a_kind_of_location_that_is_not_started_here_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "workspace.yaml").write_text("load_from:\n  - grpc_server: {port: 4000}\n")
    with pytest.raises(local_stack.StackError, match="'grpc_server' can't be started"):
        locations(tmp_path / "workspace.yaml")


@pytest.mark.parametrize("depth", [1, 20])
def test_sockets_are_in_a_folder_of_this_user_alone_and_have_names_that_linux_allows(
    tmp_path: Path, depth: int
) -> None:
    home = tmp_path.joinpath(*["long"] * depth)
    home.mkdir(parents=True)
    with sockets(home) as folder:
        longest = socket_of(folder, Location("a_package_of_that_team.and_a_module_with_a_long_name", ()))
        assert len(f"{longest}.runs.4194304") <= 107
        assert folder.stat().st_mode & 0o077 == 0
    with sockets(home) as folder:
        assert list(folder.iterdir()) == []


def test_what_takes_the_place_of_the_daemon_gets_its_options(tmp_path: Path) -> None:
    (daemon,) = [each for each in commands([], tmp_path, tmp_path / "workspace.yaml", 3000) if each.name == "daemon"]
    assert daemon.arguments == (*DAEMON, "-w", str(tmp_path / "workspace.yaml"))
