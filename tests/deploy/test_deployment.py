"""docker/compose.yaml, run as Docker would run it: what it starts works, and keeps working.

Its services run in namespaces of the kernel, with their own commands, environment, users and file systems (engine.py).
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg2
import pytest
import requests

from dedp_assets import settings
from tests.cluster.spark_cluster import find_java
from tests.deploy import images
from tests.deploy.compose import DOCKER, program, resolved
from tests.deploy.engine import Container, Engine, why_not

pytestmark = pytest.mark.slow

# Long, because the machine may be slow and busy. Every wait ends as soon as its condition is true.
PATIENCE_SECONDS = 600
DISK_MEGABYTES = 700

# Prints the number of devices that have been counted, for each day.
COUNTED = """
from deltalake import DeltaTable
rows = DeltaTable("/data/lake/device_counts").to_pyarrow_table().group_by("event_time").aggregate([("count", "sum")])
print(*sorted(f"{row['event_time']}:{row['count_sum']}" for row in rows.to_pylist()))
"""

# Where the signs of life of stopped processes are, as if they were old.
BEATS_LONG_AGO = """
    UPDATE dagster.daemon_heartbeats
    SET body = jsonb_set(body::jsonb, '{timestamp}', to_jsonb((body::jsonb ->> 'timestamp')::float8 - 1000))::text
    RETURNING daemon_type
"""
LOOKED_LONG_AGO = "UPDATE dedp.alert_looks SET ended_at = ended_at - interval '1000 seconds' RETURNING ended_at"

EARLIER = settings.REPOSITORY / "tests" / "earlier_homes" / "backup-0.1.0"

AT_REST = """
import os
from dedp_assets.landing.kernel import Kernel
from dedp_assets.landing.versions import FileVersion
for name in ("own", "another"):
    version = FileVersion.of(os.stat(f"/data/landing/notes/{name}"))
    print(f"{name}:{Kernel().is_at_rest('/data/landing/notes', name, version)}")
"""

README = (DOCKER / "README.md").read_text()

T = TypeVar("T")


class Deployment:
    """The running services, and what a user of them has: a folder where files land, and two passwords."""

    def __init__(self, folder: Path, docker_compose: str) -> None:
        self.landing = folder / "landing"
        self.backups = folder / "backups"
        self.password: dict[str, str] = {}
        # The most memory that a service has had of its own, in bytes.
        self.most: dict[str, int] = {}
        self._loaded: dict[str, int] = {}
        self._dropped: set[str] = set()
        (folder / "secrets").mkdir(mode=0o700)
        for name in ("postgres_password", "admin_password"):
            self.password[name] = secrets.token_urlsafe(24)
            (folder / "secrets" / name).write_text(self.password[name] + "\n")
            (folder / "secrets" / name).chmod(0o444)
        self.landing.mkdir()
        self.backups.mkdir()
        project = resolved(
            docker_compose,
            {
                "DEDP_SECRETS": str(folder / "secrets"),
                "DEDP_LANDING": str(self.landing),
                "DEDP_SETTLE_SECONDS": "0.5",
            },
        )
        ours = images.of_dagster()
        os.chown(self.backups, int(ours.user), int(ours.user))
        contents = {name: ours for name in project["services"]}
        contents["postgres"] = images.of_postgres()
        java_home = find_java()
        if java_home is None:
            project["services"].pop("spark")
        else:
            contents["spark"] = images.of_spark(java_home)
        self.engine = Engine(project, contents, folder / "containers", DISK_MEGABYTES)

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What a query finds in the database."""
        with self.engine.outside():
            connection = psycopg2.connect(
                host=self.engine.address("postgres"),
                user="dedp",
                dbname="dedp",
                password=self.password["postgres_password"],
                connect_timeout=5,
            )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(query, parameters)
                return cursor.fetchall()
        finally:
            connection.close()

    def drop(self, path: str, text: str) -> None:
        """Write a file into the landing folder, as its user would."""
        file = self.landing / path
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}")
        draft.write_text(text)
        draft.rename(file)

    def drop_devices(self, day: str, devices: int) -> None:
        """A day of devices: one that every day has, and others that no other day has."""
        self._dropped.add(day)
        lines = ["phone;Every Day;1", *(f"phone;{day} {number};1" for number in range(1, devices))]
        self.drop(f"devices/{day}/dataset.csv", "\n".join(["type;full_name;version", *lines, ""]))

    def wait_until(self, condition: Callable[[], T], why: Callable[[], str] = str, only: Sequence[str] = ()) -> T:
        """Wait until the condition returns something that is true; return that. Ended services start meanwhile.

        Args:
            condition: asked again and again, also while the database does not answer.
            why: what to say if it never is true.
            only: the services that may start. None: all of them.
        """
        give_up = time.monotonic() + PATIENCE_SECONDS
        failed = ""
        while True:
            self.engine.up(*only)
            self._measure()
            try:
                if found := condition():
                    return found
            except psycopg2.Error as error:
                failed = str(error)
            assert time.monotonic() < give_up, f"waited in vain. {why()} {failed}\n{self.engine.tail()}"
            time.sleep(0.3)

    def _measure(self) -> None:
        for name, group in self.engine.groups.items():
            self.most[name] = max(self.most.get(name, 0), group.memory)

    def wait_until_a_run_of(self, location: str) -> None:
        """Wait until a run of a code location is under way."""
        under_way = """
            SELECT FROM dagster.runs JOIN dagster.run_tags USING (run_id)
            WHERE status = 'STARTED' AND key = 'dagster/code_location' AND value = %s
        """
        self.wait_until(lambda: self.rows(under_way, f"jobs.{location}"))

    def wait_until_loaded(self, devices_by_day: dict[str, int]) -> None:
        """Wait until each day has been loaded with that number of devices, and the totals are those of all days."""
        self._loaded |= devices_by_day
        expected = {(day.replace("-", ""), devices, devices) for day, devices in self._loaded.items()}
        loads = """
            SELECT load_id, rows_loaded, (SELECT count(*) FROM dedp.devices_raw WHERE load_id = loads.load_id)
            FROM dedp.devices_loads AS loads
        """
        self.wait_until(lambda: set(self.rows(loads)) == expected)
        totals = """
            SELECT sum(all_occurrences), sum(all_occurrences) FILTER (WHERE full_name = 'Every Day')
            FROM dedp.devices_aggregates
        """
        total = sum(self._loaded.values()), len(self._dropped) or None
        self.wait_until(lambda: self.rows(totals) == [total])

    def begin_again(self, devices_by_day: dict[str, int]) -> None:
        """Take away all services, volumes and landed files. Days that have been loaded elsewhere will be restored."""
        self.engine.down()
        for folder in self.landing.iterdir():
            shutil.rmtree(folder)
        self._loaded, self._dropped = dict(devices_by_day), set()

    @contextmanager
    def page(self, password: str | None) -> Iterator[tuple[requests.Session, str]]:
        """A session of a script with the web server, as the machine of the containers has it."""
        with self.engine.outside(), requests.Session() as session:
            session.trust_env = False
            session.auth = ("admin", password) if password is not None else None
            yield session, f"http://{self.engine.address('webserver')}:3000"

    def graphql(self, query: str, **variables: object) -> dict[str, Any]:
        """What the web server answers to `admin`."""
        with self.page(self.password["admin_password"]) as (session, url):
            answer = session.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def complaints(self, text: str) -> int:
        """How often the services have said something."""
        return sum(self.engine.said(name).count(text) for name in self.engine.containers)

    def running(self) -> list[Container]:
        """The services that are to run always."""
        return [container for container in self.engine.containers.values() if container.name != "migrate"]

    def has_watchdog_ended(self, name: str, patience_seconds: float = PATIENCE_SECONDS) -> bool:
        """Whether the health check of a service ends it, if it has given no sign of life for ten minutes.

        Args:
            patience_seconds: for how long to wait for its process 1 to end: that takes a moment.
        """
        self.engine.run_in(name, ["touch", "--date=10 minutes ago", "/tmp/silent"])
        process = self.engine.containers[name].process
        assert process is not None
        assert not self.engine.is_healthy(name)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_seconds)
        return process.poll() is not None

    def of_readme(self, command: str) -> tuple[list[str], list[dict[str, Any]]]:
        """A command of docker/README.md that `docker compose run` is given, and the folder that it mounts."""
        [line] = [line for line in README.splitlines() if command in line and line.startswith("compose run")]
        found = re.fullmatch(
            r'compose run --rm --no-deps( --volume "\$PWD/backups:/backups(:ro)?")? migrate (.*)', line
        )
        assert found
        has_mount, mode, words = found.groups()
        mount = {"type": "bind", "source": str(self.backups), "target": "/backups", "read_only": bool(mode)}
        return words.split(), [mount] if has_mount else []

    def wait_until_healthy(self) -> None:
        # The daemon's check comes last: it takes seconds of a core.
        waiting = sorted((container.name for container in self.running()), key=lambda name: name == "daemon")

        def none_is_left() -> bool:
            while waiting and self.engine.is_healthy(waiting[0]):
                del waiting[0]
            if waiting:
                time.sleep(1)  # A check takes the cores that the services start on.
            return not waiting

        self.wait_until(none_is_left, lambda: f"Not healthy: {waiting}")


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    docker_compose = program("docker-compose")
    if docker_compose is None:
        pytest.skip("needs docker-compose, of requirements-dev.txt")
    if reason := why_not():
        pytest.skip(reason)
    # Not below pytest's own temporary folder: the users of the containers may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="dedp-deploy-"))
    folder.chmod(0o755)
    (folder / "containers").mkdir()
    running = Deployment(folder, docker_compose)
    try:
        running.engine.make()
        running.wait_until_healthy()
        yield running
    finally:
        running.engine.close()
        shutil.rmtree(folder)


def test_every_service_becomes_healthy_without_a_restart(deployment: Deployment) -> None:
    assert {name: container.starts for name, container in deployment.engine.containers.items()} == dict.fromkeys(
        deployment.engine.containers, 1
    )


def test_every_process_is_a_user_s_without_privileges(deployment: Deployment) -> None:
    for container in deployment.running():
        for process in container.processes():
            with suppress(psutil.NoSuchProcess, FileNotFoundError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                said = dict(line.split(":\t", 1) for line in status.splitlines())
                assert set(said["Uid"].split()) == {str(container.user[0])} != {"0"}, container.name
                assert (said["CapEff"], said["CapBnd"]) == ("0" * 16, "0" * 16), container.name
                assert said["NoNewPrivs"] == "1", container.name


def test_a_service_writes_to_its_volumes_and_to_tmp_and_nowhere_else(deployment: Deployment) -> None:
    writable = {}
    for container in deployment.running():
        places = ["/", "/tmp", "/opt/dedp", "/opt/dagster", "/opt/dagster/storage", "/data", "/data/landing"]
        script = 'for place in "$@"; do touch "$place/intruder" && echo "$place"; rm -f "$place/intruder"; done'
        said = deployment.engine.run_in(container.name, ["sh", "-c", script, "sh", *places]).stdout.split()
        writable[container.name] = set(said) - {"/tmp"}
    logs = "/opt/dagster/storage"
    expected = {name: {"/data", logs} for name in writable} | {"daemon": {logs}, "webserver": {logs}}
    assert writable == expected | {name: set() for name in ("postgres", "spark", "metrics") if name in writable}


def test_the_passwords_are_in_no_environment_and_no_command_line(deployment: Deployment) -> None:
    for container in deployment.running():
        for process in container.processes():
            with suppress(psutil.NoSuchProcess):
                words = [*process.environ().values(), *process.cmdline()]
                assert [word for word in words if any(secret in word for secret in deployment.password.values())] == []


def test_only_who_needs_spark_or_the_database_reaches_it(deployment: Deployment) -> None:
    names = [container.name for container in deployment.running()]
    if "spark" in names:
        spark = {name for name in names if deployment.engine.reaches(name, "spark", 15002)}
        assert spark == {"spark", "late_data_integrator", "flight_search"}
    database = {name for name in names if deployment.engine.reaches(name, "postgres", 5432)}
    assert database == {*names} - {"spark"}


def test_a_file_that_lands_is_in_the_table_and_the_page_shows_what_its_runs_printed(deployment: Deployment) -> None:
    deployment.drop_devices("2024-01-01", 5)
    deployment.wait_until_loaded({"2024-01-01": 5})
    ended = "SELECT run_id FROM dagster.runs WHERE run_body LIKE '%%devices_raw%%' AND status = 'SUCCESS' LIMIT 1"
    (run,) = deployment.wait_until(lambda: deployment.rows(ended))
    query = """
        query ($run: ID!) {
          logsForRun(runId: $run) {
            ... on EventConnection { events { ... on LogsCapturedEvent { fileKey } } }
          }
        }"""
    events = deployment.graphql(query, run=run[0])["logsForRun"]["events"]
    (key,) = [event["fileKey"] for event in events if event]
    query = "query ($key: [String!]!) { capturedLogs(logKey: $key) { stderr } }"
    logs = deployment.graphql(query, key=[run[0], "compute_logs", key])["capturedLogs"]["stderr"]
    assert "STEP_SUCCESS" in logs


def test_who_has_not_signed_in_gets_nothing(deployment: Deployment) -> None:
    with deployment.page(None) as (session, url):
        page = session.get(url, headers={"Accept": "text/html"}, timeout=60)
        assert page.url.startswith(f"{url}/sign-in")
        assert page.status_code == 200
        assert session.post(f"{url}/graphql", json={"query": "{ version }"}, timeout=60).status_code == 401
    with deployment.page("wrong") as (session, url):
        assert session.post(f"{url}/graphql", json={"query": "{ version }"}, timeout=60).status_code == 401
    assert deployment.graphql("{ version }")["version"]


def test_only_a_file_of_the_containers_user_is_known_to_be_complete_at_once(deployment: Deployment) -> None:
    """The kernel grants a lease on no file of another user. Such a file has to settle."""
    user = deployment.engine.containers["devices_loader"].user
    for name in ("own", "another"):
        deployment.drop(f"notes/{name}", "complete")
    os.chown(deployment.landing / "notes" / "own", *user)
    done = deployment.engine.run_in("devices_loader", ["python", "-c", AT_REST])
    assert done.stdout.split() == ["own:True", "another:False"], done.stderr


def test_late_data_is_counted_by_spark_in_another_container(deployment: Deployment) -> None:
    if "spark" not in deployment.engine.containers:
        pytest.skip("needs a JDK 17 to 24")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return deployment.engine.run_in("late_data_integrator", list(command))

    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    for loaded in (days, days[:1]):
        done = run("dedp", "load-delta", *loaded, "--rows", "20")
        assert done.returncode == 0, done.stderr
    # The last day is not closed yet.
    deployment.wait_until(lambda: run("python", "-c", COUNTED).stdout.split() == ["2024-01-01:40", "2024-01-02:20"])


def test_each_service_that_is_killed_starts_again_and_nothing_is_lost_or_doubled(deployment: Deployment) -> None:
    days = {f"2024-02-{number:02}": 5000 + number for number in range(1, 9)}
    for day, devices in days.items():
        deployment.drop_devices(day, devices)
    # One in the middle of a run, which dies with it. If Dagster's retry comes too early, while the code server is still
    # away, there is none; then reconciliation puts the days back, minutes later.
    deployment.wait_until_a_run_of("devices_aggregator")
    names = [container.name for container in deployment.running()]
    for name in sorted(names, key=lambda name: name != "devices_aggregator"):
        starts = deployment.engine.containers[name].starts
        deployment.engine.kill(name)
        deployment.wait_until(partial(deployment.engine.has_started_again, name, starts))
    deployment.wait_until_healthy()
    deployment.drop_devices("2024-02-09", 3)
    deployment.wait_until_loaded({**days, "2024-02-09": 3})


def test_a_restart_of_the_database_loses_nothing(deployment: Deployment) -> None:
    days = {f"2024-03-0{number}": 5000 for number in range(1, 4)}
    for day, devices in days.items():
        deployment.drop_devices(day, devices)
    deployment.wait_until_a_run_of("devices_aggregator")
    deployment.engine.stop("postgres", signal.SIGINT)
    deployment.wait_until_loaded(days)
    deployment.wait_until_healthy()


def test_a_full_disk_loses_nothing_and_is_recovered_from_once_there_is_space(deployment: Deployment) -> None:
    filler = deployment.engine.disk / "filler"
    complaints = deployment.complaints("No space left on device")

    def is_noticed() -> bool:
        # Again and again: what fails gives back what it has taken.
        with open(filler, "ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(1 << 12)):
                pass
        return deployment.complaints("No space left on device") > complaints + 3

    is_noticed()
    deployment.drop_devices("2024-04-01", 20_000)
    deployment.wait_until(is_noticed)
    filler.unlink()
    deployment.wait_until_loaded({"2024-04-01": 20_000})
    deployment.wait_until_healthy()


def test_each_service_that_hangs_is_ended_starts_again_and_catches_up(deployment: Deployment) -> None:
    """All at once, stopped as a deadlock stops them. The watchdogs are told that it has been so for ten minutes."""
    names = {container.name: container.starts for container in deployment.running()}
    for name in names:
        deployment.engine.hang(name)
    deployment.drop_devices("2024-05-01", 3)
    # While the database hangs, too, nobody can tell whether these two do.
    by_the_database = {"daemon": BEATS_LONG_AGO, "alerts": LOOKED_LONG_AGO}
    assert not any(deployment.has_watchdog_ended(name, patience_seconds=1) for name in by_the_database)
    with ThreadPoolExecutor(4) as at_once:
        others = [name for name in names if name not in by_the_database]
        assert all(at_once.map(deployment.has_watchdog_ended, others))
    deployment.wait_until(lambda: deployment.engine.is_healthy("postgres"))
    for name, long_ago in by_the_database.items():
        assert deployment.rows(long_ago)
        assert deployment.has_watchdog_ended(name)
    for name, starts in names.items():
        deployment.wait_until(partial(deployment.engine.has_started_again, name, starts))
    deployment.wait_until_healthy()
    deployment.wait_until_loaded({"2024-05-01": 3})


def test_after_all_of_this_no_run_hangs_and_the_totals_are_those_of_the_files(deployment: Deployment) -> None:
    under_way = "SELECT FROM dagster.runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"
    deployment.wait_until(lambda: not deployment.rows(under_way))
    deployment.wait_until_loaded({})


def test_the_limits_leave_room_for_what_the_services_take(deployment: Deployment) -> None:
    for container in deployment.running():
        limits = container.limits
        memory = threads = 0
        for process in container.processes():
            with suppress(psutil.NoSuchProcess):
                memory += process.memory_full_info().pss
                threads += process.num_threads()
        assert memory < 0.5 * int(limits["memory"]), container.name
        assert threads < 0.5 * limits["pids"], container.name
        most = deployment.most[container.name]
        assert most < 0.6 * int(limits["memory"]), container.name
        print(f"{container.name}: {memory / 2**20:.0f} MiB, at most {most / 2**20:.0f} MiB; {threads} threads")
    for name, group in deployment.engine.groups.items():
        assert group.killed == 0, name


def test_a_backup_is_made_and_old_records_are_purged_by_the_commands_of_the_readme(deployment: Deployment) -> None:
    command, mounts = deployment.of_readme("dedp backup")
    code, said = deployment.engine.run("migrate", command, *mounts)
    assert code == 0, said
    assert [path.name for path in deployment.backups.iterdir()] == [Path(command[-1]).name]
    command, mounts = deployment.of_readme("dedp purge")
    code, said = deployment.engine.run("migrate", command, *mounts)
    assert code == 0, said


def test_what_comes_before_all_services_refuses_a_database_that_a_later_version_has_migrated(
    deployment: Deployment,
) -> None:
    """`migrate`, as `up` runs it: the others wait until it has succeeded."""
    record = "INSERT INTO dedp.schema_migrations VALUES ('sign_in', 9999, 'of_tomorrow', repeat('0', 64)) RETURNING 1"
    assert deployment.rows(record) == [(1,)]
    its_own = deployment.engine.containers["migrate"].service["command"]
    code, said = deployment.engine.run("migrate", its_own)
    assert (code, "it has 9999_of_tomorrow.sql of sign_in" in said) == (1, True), said
    assert deployment.rows("DELETE FROM dedp.schema_migrations WHERE number = 9999 RETURNING 1") == [(1,)]
    code, said = deployment.engine.run("migrate", its_own)
    assert code == 0, said


def test_an_earlier_version_is_upgraded_with_its_data_and_all_services_restart_while_files_land(
    deployment: Deployment,
) -> None:
    """Its backup is restored into new volumes, as the README says. Then each service restarts, in the order of `up`."""
    deployment.begin_again({"2024-01-01": 2, "2024-01-02": 1})
    deployment.wait_until(lambda: deployment.engine.is_healthy("postgres"), only=["postgres"])
    shutil.copytree(EARLIER, deployment.backups / "earlier")
    command, mounts = deployment.of_readme("dedp restore")
    code, said = deployment.engine.run("migrate", [*command[:-1], "/backups/earlier"], *mounts)
    assert code == 0, said
    deployment.wait_until_loaded({})
    days = {f"2024-06-0{number}": 2000 for number in range(1, 6)}
    for day, devices in days.items():
        deployment.drop_devices(day, devices)
    deployment.wait_until_a_run_of("devices_aggregator")
    starts = {container.name: container.starts for container in deployment.running()}
    others = ["daemon", "webserver", "alerts", "metrics"]
    for number, names in enumerate([starts.keys() - {*others, "postgres"}, others], 1):
        for name in names:
            deployment.engine.stop(name)
        deployment.drop_devices(f"2024-07-0{number}", 3)
        days[f"2024-07-0{number}"] = 3
        for name in names:
            deployment.wait_until(partial(deployment.engine.has_started_again, name, starts[name]))
    deployment.wait_until_loaded(days)
