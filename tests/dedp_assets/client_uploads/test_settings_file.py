"""`uploads.yaml`: which directories it names, and what a wrong setting gets."""

import os
import re
from pathlib import Path

import pytest

from dedp_assets.client_uploads.settings_file import (
    DEFAULT,
    ClientFinder,
    Clients,
    QuarantineLimits,
    Rule,
    SettingsProblem,
    UploadSettings,
    read_settings,
)
from dedp_assets.client_uploads.watched import WatchedClients
from dedp_assets.landing.directories import ObjectFolder


def found(landing: Path, *rules: Rule) -> Clients:
    return ClientFinder(2.0).find(UploadSettings(directories=list(rules)), landing)


def folders(landing: Path, *names: str) -> None:
    for name in names:
        (landing / name).mkdir(parents=True)


def test_without_settings_each_directory_below_clients_is_a_client(tmp_path: Path) -> None:
    folders(tmp_path, "clients/north", "clients/south", "clients/.hidden", "others/x")
    (tmp_path / "clients" / "readme.txt").touch()
    clients = ClientFinder(2.0).find(DEFAULT, tmp_path)
    assert {name: client.directory.path for name, client in clients.by_name.items()} == {
        "north": tmp_path / "clients" / "north",
        "south": tmp_path / "clients" / "south",
    }
    assert clients.by_name["north"].directory.patterns == ("*.csv", "*.json")
    assert clients.by_name["north"].format.header == "id,name,value"
    assert clients.problems == []


def test_a_new_client_needs_no_edit(tmp_path: Path) -> None:
    folders(tmp_path, "clients/north")
    finder = ClientFinder(2.0)
    first = finder.find(DEFAULT, tmp_path)
    # As on a machine where nothing has happened for a while: what was found is not looked for again.
    os.utime(tmp_path / "clients", (1, 1))
    again = finder.find(DEFAULT, tmp_path)
    assert finder.find(DEFAULT, tmp_path) is again
    folders(tmp_path, "clients/south")
    assert set(first.by_name) == {"north"}
    assert set(finder.find(DEFAULT, tmp_path).by_name) == {"north", "south"}


def test_what_the_first_wildcard_stands_for_is_the_client(tmp_path: Path) -> None:
    folders(tmp_path, "[a]/eu-north/in", "[a]/eu-south/in", "[a]/us-north/in", "[a]/eu-empty")
    clients = found(tmp_path / "[a]", Rule(directory="eu-*/in"))
    assert set(clients.by_name) == {"eu-north", "eu-south"}


def test_a_directory_that_is_named_is_watched_before_it_is_there(tmp_path: Path) -> None:
    clients = found(tmp_path, Rule(directory="partner/outbox", client="partner"), Rule(directory="/srv/sftp/acme"))
    assert {name: str(client.directory.path) for name, client in clients.by_name.items()} == {
        "partner": f"{tmp_path}/partner/outbox",
        "acme": "/srv/sftp/acme",
    }


def test_of_two_rules_the_first_counts_and_two_directories_of_one_client_are_named(tmp_path: Path) -> None:
    folders(tmp_path, "clients/north", "archive/north")
    clients = found(
        tmp_path,
        Rule(directory="clients/north", priority=5),
        Rule(directory="clients/*"),
        Rule(directory="archive/north"),
    )
    assert clients.by_name["north"].directory.priority == 5
    assert clients.problems == [
        f"{tmp_path}/archive/north is not watched: the client north has the directory {tmp_path}/clients/north "
        "already; give one of them another name with `client:`"
    ]


def test_a_directory_whose_name_can_be_no_partition_is_named_and_stops_no_other(tmp_path: Path) -> None:
    folders(tmp_path, "clients/a...b", "clients/line\nbreak", "clients/good")
    os.mkdir(os.fsencode(tmp_path) + b"/clients/caf\xe9")
    clients = ClientFinder(2.0).find(DEFAULT, tmp_path)
    assert set(clients.by_name) == {"good"}
    assert len(clients.problems) == 3
    assert any("caf\\xe9 is not watched: its name is not UTF-8" in problem for problem in clients.problems)


def test_a_deeper_folder_whose_name_is_no_text_is_named_and_stops_no_other(tmp_path: Path) -> None:
    folders(tmp_path, "clients/north", "clients/south/in")
    os.mkdir(os.fsencode(tmp_path) + b"/clients/north/caf\xe9")
    clients = found(tmp_path, Rule(directory="clients/*/*"))
    assert set(clients.by_name) == {"south"}
    assert "caf\\xe9 is not watched: its name is not UTF-8" in clients.problems[0]


def test_a_directory_may_be_a_prefix_in_an_object_store(tmp_path: Path) -> None:
    clients = found(
        tmp_path,
        Rule(directory="s3://bucket/suppliers/north/"),
        Rule(directory="abfss://box@account.dfs.core.windows.net/in", client="south", settle=30),
        Rule(directory="gs://west"),
    )
    assert {
        name: (client.directory.path, client.directory.settle_seconds) for name, client in clients.by_name.items()
    } == {
        "north": (ObjectFolder("s3://bucket/suppliers/north"), 2.0),
        "south": (ObjectFolder("abfss://box@account.dfs.core.windows.net/in"), 30),
        "west": (ObjectFolder("gs://west"), 2.0),
    }


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("ftp://user:secret@host/x", "begins with ftp://; expected a path, or s3://, gs:// or abfss://"),
        ("s3:///x", "names no bucket"),
        ("s3://bucket/*", "has a wildcard; expected the URI of one directory"),
        ("s3://bucket/x?versionId=1", "has a ? or a # in it"),
    ],
)
def test_a_uri_that_cannot_be_watched_is_named_without_its_password(uri: str, problem: str) -> None:
    with pytest.raises(SettingsProblem) as raised:
        read_settings(f"directories:\n  - directory: {uri}\n", "uploads.yaml")
    assert str(raised.value).startswith("uploads.yaml:2: directories.0: ")
    assert problem in str(raised.value)
    assert "secret" not in str(raised.value)


def test_every_setting_is_read() -> None:
    text = """
    max_runs: 2
    max_files_per_run: 50
    directories:
      - directory: clients/*
        patterns: ["*.csv", "*.txt"]
        completeness: marker
        marker: "{file}.done"
        settle: 30s
        priority: 7
        timeout: 7d
        after_timeout: give up
        delimiter: ";"
        columns: {id: sku, value: price}
        target: uploads/received
    """
    settings = read_settings(text, "uploads.yaml")
    (rule,) = settings.directories
    assert (settings.max_runs, settings.max_files_per_run) == (2, 50)
    assert (rule.settle, rule.timeout, rule.priority, rule.marker) == (30, 7 * 86400, 7, "{file}.done")
    assert rule.format().header == "sku;name;price"
    assert rule.target == "uploads/received"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("directories: [", "uploads.yaml:1: this is not YAML"),
        ("", "uploads.yaml:1: the file: "),
        ("directories: []", "uploads.yaml:1: directories: "),
        (
            "directories:\n- directory: a\n  prio: 1",
            "uploads.yaml:3: directories.0.prio: unknown setting; known here: ",
        ),
        ("folders: 1", "uploads.yaml:1: folders: unknown setting; known here: directories"),
        ("directories:\n- directory: a\n  timeout: soon", "uploads.yaml:3: directories.0.timeout: "),
        ("directories:\n- directory: a\n  timeout: -5", "uploads.yaml:3: directories.0.timeout: "),
        ("directories:\n- directory: a\n  priority: high", "uploads.yaml:3: directories.0.priority: "),
        ("directories:\n- directory: a\nmax_runs: 0", "uploads.yaml:3: max_runs: "),
        ("directories:\n- directory: a\nmax_files_per_run: many", "uploads.yaml:3: max_files_per_run: "),
        ("directories:\n- directory: a\n  completeness: later", "uploads.yaml:3: directories.0.completeness: "),
        ("directories:\n- directory: a/*\n  client: b", "expected a directory without wildcards"),
        ("directories:\n- directory: a\n  client: b...c", "three dots"),
        ("directories:\n- directory: a\n  marker: x/y", "the marker is 'x/y'; expected a file name"),
        ("directories:\n- directory: a\n  delimiter: ';;'", "the delimiter is ';;'; expected one ASCII character"),
        ("directories:\n- directory: a\n  columns: {id: x, name: x}", "a column stands twice"),
        ("directories:\n- directory: a\n  columns: {idd: x}", "uploads.yaml:3: directories.0.columns"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(SettingsProblem) as raised:
        read_settings(text, "uploads.yaml")
    assert problem in str(raised.value)


def test_settings_that_are_wrong_leave_the_last_good_ones_in_force_also_after_a_restart(own_home: Path) -> None:
    file = own_home / "uploads.yaml"
    folders(own_home / "landing", "clients/north", "vip/acme")
    watched = WatchedClients()
    assert set(watched.now().by_name) == {"north"}
    file.write_text("{directories: [{directory: vip/*}], max_runs: 2}")
    assert (set(watched.now().by_name), watched.now().max_runs) == ({"acme"}, 2)
    file.write_text("directories: [{directory: clients/*, settel: 3}]")
    for each in (watched, WatchedClients()):
        clients = each.now()
        assert (set(clients.by_name), clients.max_runs) == ({"acme"}, 2)
        assert clients.problems[0].startswith(f"{file}:1: directories.0.settel: unknown setting")
        assert clients.problems[1] == "the last good settings stay in force"
    file.write_text("directories: [{directory: clients/*}]")
    assert set(watched.now().by_name) == {"north"}
    assert watched.now().problems == []
    file.unlink()
    assert set(watched.now().by_name) == {"north"}


def test_settings_of_another_place(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_UPLOADS", str(tmp_path / "elsewhere.yaml"))
    (tmp_path / "elsewhere.yaml").write_text(f"directories: [{{directory: {tmp_path}/x}}]")
    assert set(WatchedClients().now().by_name) == {"x"}


def test_the_limits_of_quarantine_are_settings_with_defaults() -> None:
    settings = read_settings("directories: [{directory: clients/*}]\nquarantine: {share: 0.5, window: 1d}\n", "a.yaml")
    assert settings.quarantine == QuarantineLimits(share=0.5, lines=100, window=86_400)
    assert read_settings("directories: [{directory: clients/*}]\n", "a.yaml").quarantine == QuarantineLimits()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("share: 20", "quarantine.share: Input should be less than 1"),
        ("lines: 0", "quarantine.lines: Input should be greater than or equal to 1"),
        ("limit: 0.2", "quarantine.limit: unknown setting; known here: share, lines, window"),
    ],
)
def test_a_wrong_limit_of_quarantine_is_named_with_its_line(setting: str, said: str) -> None:
    with pytest.raises(SettingsProblem, match="uploads.yaml:3: " + re.escape(said)):
        read_settings(f"directories: [{{directory: a}}]\nquarantine:\n  {setting}\n", "uploads.yaml")
