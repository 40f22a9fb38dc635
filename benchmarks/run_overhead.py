"""What a run of the two sequencer assets costs besides its work: connections, statements and time between its events.

The runs are executed in this process, with Dagster's storage in PostgreSQL and the settings of the deployment. Counts
do not depend on the machine, times do.

    python benchmarks/run_overhead.py --timeline
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FIRST_DAY = date(2024, 1, 1)


class Moment(NamedTuple):
    """An event of a run, in s since the run was begun, and what had been done by then."""

    event: str
    seconds: float
    counts: Counter[str]


class Counting:
    """Counts connections and statements, of Dagster's storage and of ours, and notes when each event is stored."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.statements: Counter[str] = Counter()
        self.moments: list[Moment] = []
        self._began = 0.0

    def begin(self) -> None:
        self.counts.clear()
        self.statements.clear()
        self.moments.clear()
        self._began = time.perf_counter()

    def install(self) -> None:
        import psycopg2
        import sqlalchemy as sa
        from dagster import DagsterInstance
        from psycopg2.extensions import cursor as Cursor
        from sqlalchemy.engine import Engine

        counts, statements, counting = self.counts, self.statements, self

        class CountingCursor(Cursor):
            def execute(self, query: Any, vars: Any = None) -> Any:
                counts["our statements"] += 1
                return super().execute(query, vars)

            def copy_expert(self, *arguments: Any, **options: Any) -> Any:
                counts["our statements"] += 1
                return super().copy_expert(*arguments, **options)

        connect = psycopg2.connect

        def counted_connect(*arguments: Any, **options: Any) -> Any:
            if options.get("application_name") == "dedp":
                counts["our connections"] += 1
                return connect(*arguments, cursor_factory=CountingCursor, **options)
            counts["Dagster's connections"] += 1
            return connect(*arguments, **options)

        psycopg2.connect = counted_connect

        @sa.event.listens_for(Engine, "before_cursor_execute")
        def count(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            counts["Dagster's statements"] += 1
            statements[" ".join(statement.split())[:110]] += 1

        handle = DagsterInstance.handle_new_event

        def noted(instance: Any, event: Any, **options: Any) -> Any:
            result = handle(instance, event, **options)
            dagster_event = event.dagster_event
            name = dagster_event.event_type_value if dagster_event else f"log: {event.user_message[:60]}"
            step = dagster_event.step_key if dagster_event and dagster_event.step_key else ""
            moment = Moment(f"{name} {step}", time.perf_counter() - counting._began, Counter(counts))
            counting.moments.append(moment)
            return result

        setattr(DagsterInstance, "handle_new_event", noted)  # noqa: B010  its signature is wider


@contextmanager
def deployed_instance(home: Path, stock_storage: bool) -> Iterator[Any]:
    """An instance with the settings of the deployment, on a PostgreSQL server of its own."""
    import psycopg2
    from dagster import DagsterInstance

    from dedp_assets.resources.embedded_postgres import server_lease

    with server_lease(home / "postgres") as dsn:
        connection = psycopg2.connect(dsn)
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE dagster")
        connection.close()
        parameters = psycopg2.extensions.parse_dsn(dsn)
        os.environ["DEDP_POSTGRES_DSN"] = dsn
        os.environ["DEDP_DAGSTER_STORAGE"] = (
            f"postgresql://{parameters['user']}@/dagster?host={parameters['host']}&port={parameters.get('port', 5432)}"
            if parameters["host"].startswith("/")
            else dsn.rpartition("/")[0] + "/dagster"
        )
        dagster_home = home / "dagster"
        dagster_home.mkdir()
        settings = yaml.safe_load((Path(__file__).parents[1] / "docker" / "dagster.yaml").read_text())
        if stock_storage:
            settings["storage"] = {"postgres": settings["storage"]["custom"]["config"]}
        (dagster_home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        with DagsterInstance.from_config(str(dagster_home)) as instance:
            yield instance


def execute(instance: Any, location: str, keys: list[str], day: str, config: dict[str, Any] | None = None) -> None:
    """One run, from its creation on as the process of a run does it."""
    import dagster as dg
    from dagster._core.definitions.reconstruct import ReconstructableRepository
    from dagster._core.execution.api import execute_run_iterator

    job = ReconstructableRepository.for_module(location, "defs").get_reconstructable_job("__ASSET_JOB")
    selection = frozenset(dg.AssetKey.from_user_string(key) for key in keys)
    graph = job.get_definition().asset_layer.asset_graph
    # As a run that the automation condition requests: the checks that the assets evaluate themselves.
    checks = frozenset(key for key in graph.asset_check_keys if key.name in OWN_CHECKS)
    subset = job.get_subset(asset_selection=set(selection), asset_check_selection=checks)
    run = instance.create_run_for_job(
        subset.get_definition(),
        asset_selection=selection,
        tags={"dagster/partition": day},
        run_config=config or {},
    )
    counting.begin()
    for _ in execute_run_iterator(subset, run, instance):
        pass
    assert instance.get_run_by_id(run.run_id).is_success, f"run {run.run_id} failed"


counting = Counting()

OWN_CHECKS = ("lines_accounted_for", "totals_balance")
RUNS = {
    "devices_file": ("jobs.devices_loader", ["devices_file"]),
    "devices_raw and devices_aggregates": ("jobs.devices_aggregator", ["dedp/devices_raw", "dedp/devices_aggregates"]),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--rows", type=int, default=100)
    arguments.add_argument("--timeline", action="store_true", help="print each event of the last round")
    arguments.add_argument("--stock-storage", action="store_true", help="with Dagster's own storage in place of ours")
    arguments.add_argument("--statements", action="store_true", help="print Dagster's statements of the last round")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="dedp-bench-") as folder:
        Path(folder).chmod(0o755)
        os.environ |= {"DEDP_HOME": str(Path(folder) / "home"), "DEDP_SETTLE_SECONDS": "0"}
        from dedp_assets.generator import write_csv
        from dedp_assets.isolated_sequencer.loader.landing import landing_folder

        counting.install()
        seconds: dict[str, list[float]] = {name: [] for name in RUNS}
        counts: dict[str, Counter[str]] = {}
        with deployed_instance(Path(folder), options.stock_storage) as instance:
            for number in range(options.rounds + 1):
                day = (FIRST_DAY + timedelta(days=number)).isoformat()
                landed = landing_folder().file_of(day)
                landed.parent.mkdir(parents=True)
                write_csv(landed, options.rows, seed=number)
                for name, (location, keys) in RUNS.items():
                    execute(instance, location, keys, day)
                    if number:
                        seconds[name].append(counting.moments[-1].seconds)
                    counts[name] = Counter(counting.counts)
                    if number == options.rounds:
                        _print(name, options)
        for name, taken in seconds.items():
            print(f"{name}: median {statistics.median(taken) * 1000:.0f} ms; {dict(sorted(counts[name].items()))}")


def _print(name: str, options: argparse.Namespace) -> None:
    if options.timeline:
        print(f"\n{name}")
        before = Moment("", 0.0, Counter())
        for moment in counting.moments:
            added = moment.counts - before.counts
            said = ", ".join(f"{number} {what}" for what, number in sorted(added.items()))
            print(
                f"  {moment.seconds * 1000:7.0f} ms  +{(moment.seconds - before.seconds) * 1000:5.0f}  "
                f"{moment.event:70} {said}"
            )
            before = moment
    if options.statements:
        for statement, number in counting.statements.most_common():
            print(f"  {number:4} {statement}")


if __name__ == "__main__":
    main()
