"""What the reports on promotions follow: one run for all that has changed, and nothing stays behind."""

import json
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.origin import ORIGIN_TAG
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.reports.assets import STEP
from dedp_assets.promotions.reports.following import Standing
from dedp_assets.resources.postgres import PostgresResource
from jobs.promotion_reports import defs
from sensors.pipelines.promotion_reports import (
    MAX_DELIVERIES_PER_RUN,
    Cursor,
    Seen,
    plan_reports,
    promotions_followed,
)
from sensors.reconciliation import Waiting
from tests.promotion_tables import Deliveries
from tests.ticks import SensorTicks, Tick

FRIDAY, MONDAY = "2024-01-05", "2024-01-08"
ONE, TWO = f"supermarket1|{FRIDAY}", f"supermarket2|{FRIDAY}"

NOTHING_DONE = Standing(7, None, is_measured=True, is_compared=False, is_announced=False)
DONE = Standing(7, None, is_measured=True, is_compared=True, is_announced=True)
NOW = 1_000_000.0


def seen(standings: Mapping[str, Standing], *, dashboard: str = "", running: set[str] | None = None) -> Seen:
    return Seen(standings, dashboard, running or set(), NOW)


def test_everything_that_has_changed_in_a_tick_shares_a_run_at_once() -> None:
    plan = plan_reports(seen({ONE: NOTHING_DONE, TWO: NOTHING_DONE}, dashboard="v1"), {})
    assert [set(run) for run in plan.runs] == [{ONE, TWO}]
    assert plan.dashboard is None
    assert set(plan.waiting) == {ONE, TWO, "dashboard"}


def test_a_delivery_that_is_reported_on_is_forgotten() -> None:
    plan = plan_reports(seen({ONE: DONE}), {ONE: Waiting("load 7 after none", 1, NOW)})
    assert plan == plan_reports(seen({}), {})
    assert plan.runs == []
    assert plan.waiting == {}


def test_a_delivery_that_is_not_measured_yet_waits_and_then_is_reported_on_at_once() -> None:
    waits = plan_reports(seen({ONE: NOTHING_DONE._replace(is_measured=False)}), {})
    assert waits.runs == []
    assert [set(run) for run in plan_reports(seen({ONE: NOTHING_DONE}), waits.waiting).runs] == [{ONE}]


def test_nothing_is_requested_while_its_run_is_under_way() -> None:
    plan = plan_reports(seen({ONE: NOTHING_DONE, TWO: NOTHING_DONE}, running={ONE}), {})
    assert [set(run) for run in plan.runs] == [{TWO}]
    assert ONE in plan.waiting


def test_what_keeps_failing_is_requested_with_growing_pauses_and_a_new_version_at_once() -> None:
    waiting: dict[str, Waiting] = {}
    pauses: list[float] = []
    now = last = NOW
    while len(pauses) < 5:
        plan = plan_reports(Seen({ONE: NOTHING_DONE}, "", set(), now), waiting)
        if plan.runs:
            pauses.append(now - last)
            last = now
        waiting = plan.waiting
        now += 30
    assert pauses == [0, 120, 240, 480, 960]
    another = plan_reports(Seen({ONE: NOTHING_DONE._replace(load_number=8)}, "", set(), now), waiting)
    assert len(another.runs) == 1


def test_a_dashboard_that_stays_behind_for_a_minute_gets_a_run_of_its_own() -> None:
    first = plan_reports(Seen({}, "v1", set(), NOW), {})
    assert first.dashboard is None
    assert plan_reports(Seen({}, "v1", set(), NOW + 59), first.waiting).dashboard is None
    assert plan_reports(Seen({}, "v1", set(), NOW + 60), first.waiting).dashboard is not None
    assert plan_reports(Seen({}, "v1", {"dashboard"}, NOW + 60), first.waiting).dashboard is None
    assert plan_reports(Seen({}, "", set(), NOW + 60), first.waiting).waiting == {}


def test_a_backlog_is_split_into_runs_that_a_retry_can_repeat() -> None:
    many = {f"supermarket1|{number:06}": NOTHING_DONE for number in range(MAX_DELIVERIES_PER_RUN + 1)}
    assert [len(run) for run in plan_reports(seen(many), {}).runs] == [MAX_DELIVERIES_PER_RUN, 1]


@pytest.mark.parametrize("damaged", [None, "", "{", "[]", '{"waiting": 3}'])
def test_a_cursor_that_is_lost_or_damaged_means_to_look_at_everything_again(damaged: str | None) -> None:
    assert Cursor.from_json(damaged) == Cursor()


def test_the_location_knows_what_it_follows_by_key_only() -> None:
    graph = defs.resolve_asset_graph()
    assert graph.external_asset_keys == {contract.CLEANED, contract.METRICS}
    assert graph.get(contract.DIFFERENCES).partitions_def == contract.DELIVERIES
    assert graph.get(contract.DASHBOARD).partitions_def is None
    for key in graph.materializable_asset_keys:
        assert graph.get(key).backfill_policy == dg.BackfillPolicy.single_run()


class Followed:
    """The sensor and its runs, one after the other, on real tables."""

    def __init__(self, deliveries: Deliveries, instance: dg.DagsterInstance, inbox: Path) -> None:
        self.deliveries, self.instance, self.inbox = deliveries, instance, inbox
        self.postgres = PostgresResource(dsn=deliveries.dsn)
        resources = {"postgres": self.postgres}
        self.tick = SensorTicks(promotions_followed, instance, definitions=defs, resources=resources)

    def run(self, tick: Tick, *, notify: str | None = None) -> list[bool]:
        """Execute what a tick has requested; returns which runs were successful."""
        return [self._run(request, notify or f"file:{self.inbox}") for request in tick.run_requests]

    def _run(self, request: dg.RunRequest, notify: str) -> bool:
        notifier = NotifierResource(target=notify)
        with_resources = dg.Definitions(
            assets=defs.assets, jobs=defs.jobs, resources={"postgres": self.postgres, "notifier": notifier}
        )
        job = with_resources.resolve_job_def("promotion_reports_workflow")
        result = job.execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            run_config=request.run_config or None,
            asset_selection=list(request.asset_selection or []),
            tags=request.tags,
            raise_on_error=False,
        )
        return result.success

    def told(self) -> list[str]:
        lines = self.inbox.read_text().splitlines() if self.inbox.exists() else []
        return ["|".join(json.loads(line)["key"].split("/")[1:3]) for line in lines]


@pytest.fixture
def deliveries(empty_dsn: str) -> Deliveries:
    return Deliveries(empty_dsn)


@pytest.fixture
def followed(deliveries: Deliveries, instance: dg.DagsterInstance, tmp_path: Path) -> Followed:
    return Followed(deliveries, instance, tmp_path / "messages")


def test_a_tick_before_any_delivery_says_so(empty_dsn: str, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    nothing = Followed(Deliveries(empty_dsn, is_new=False), instance, tmp_path / "messages")
    assert nothing.tick().message == "no delivery is loaded yet"


def test_a_single_delivery_has_a_run_of_its_partition_with_its_origin(followed: Followed) -> None:
    followed.deliveries.load("supermarket1", FRIDAY, {"a": 1})
    tick = followed.tick()
    (request,) = tick.run_requests
    assert request.partition_key == ONE
    assert request.tags[ORIGIN_TAG] == "sensor"
    assert int(request.tags["dagster/priority"]) > 0, "it does not wait behind a backfill"
    assert followed.run(tick) == [True]
    assert followed.tick().message == "the reports reflect every delivery"
    assert followed.told() == [ONE]


def test_several_deliveries_share_a_run_and_then_nothing_is_requested(followed: Followed) -> None:
    for supplier in ("supermarket1", "supermarket2"):
        for day in (FRIDAY, MONDAY):
            followed.deliveries.load(supplier, day, {"a": 1})
    tick = followed.tick()
    (request,) = tick.run_requests
    assert request.partition_key is None
    assert len(request.run_config["ops"][STEP]["config"]["deliveries"]) == 4
    assert followed.run(tick) == [True]
    assert followed.tick().run_requests == []
    assert followed.tick().run_requests == []
    assert len(followed.told()) == 4


def test_a_tick_that_is_evaluated_again_requests_the_same_run(followed: Followed) -> None:
    followed.deliveries.load("supermarket1", FRIDAY, {"a": 1})
    first = followed.tick()
    followed.tick.cursor = None
    assert [each.run_key for each in followed.tick().run_requests] == [each.run_key for each in first.run_requests]


def test_a_late_delivery_and_a_new_version_are_followed(followed: Followed) -> None:
    followed.deliveries.load("supermarket1", MONDAY, {"a": 3})
    followed.run(followed.tick())
    followed.deliveries.load("supermarket1", FRIDAY, {"a": 1}, late=True)
    followed.run(followed.tick())
    assert followed.deliveries.differences() == [("supermarket1", MONDAY, FRIDAY, "a", "changed", 1, 3)]
    assert followed.tick().message == "the reports reflect every delivery"
    followed.deliveries.load("supermarket1", FRIDAY, {"a": 2})
    tick = followed.tick()
    assert [request.partition_key for request in tick.run_requests] == [ONE]
    followed.run(tick)
    assert followed.deliveries.differences() == [("supermarket1", MONDAY, FRIDAY, "a", "changed", 2, 3)]
    assert followed.tick().message == "the reports reflect every delivery"


def test_what_nobody_was_told_of_is_requested_again_until_they_are(followed: Followed) -> None:
    followed.deliveries.load("supermarket1", FRIDAY, {"a": 1})
    assert followed.run(followed.tick(), notify="nowhere") == [False]
    assert followed.tick().message == f"1 report behind: {ONE}"
    cursor = Cursor.from_json(followed.tick.cursor)
    due = {key: waiting._replace(due=0.0) for key, waiting in cursor.waiting.items()}
    followed.tick.cursor = cursor.model_copy(update={"waiting": due}).model_dump_json()
    assert followed.run(followed.tick()) == [True]
    assert followed.told() == [ONE]
    assert followed.tick().message == "the reports reflect every delivery"


def test_a_lost_cursor_and_a_damaged_comparison_are_found_by_comparing_everything(followed: Followed) -> None:
    for day in (FRIDAY, MONDAY):
        followed.deliveries.load("supermarket1", day, {"a": 1})
    followed.run(followed.tick())
    followed.tick.cursor = None
    assert followed.tick().run_requests == []
    followed.deliveries.execute("DELETE FROM dedp.promotion_comparisons WHERE day = '2024-01-08'")
    assert followed.tick().run_requests == []
    cursor = Cursor.from_json(followed.tick.cursor)
    followed.tick.cursor = cursor.model_copy(update={"compared_all_at": 0.0}).model_dump_json()
    tick = followed.tick()
    assert [request.partition_key for request in tick.run_requests] == [f"supermarket1|{MONDAY}"]


def test_a_database_that_was_restored_is_looked_at_from_its_beginning(followed: Followed) -> None:
    followed.deliveries.load("supermarket1", FRIDAY, {"a": 1})
    followed.tick()
    cursor = Cursor.from_json(followed.tick.cursor)
    after = cursor.model_copy(update={"last_load": 1000, "waiting": {}})
    followed.tick.cursor = after.model_dump_json()
    assert [request.partition_key for request in followed.tick().run_requests] == [ONE]


def test_a_delivery_that_is_gone_takes_its_comparison_with_it(followed: Followed) -> None:
    for day in (FRIDAY, MONDAY):
        followed.deliveries.load("supermarket1", day, {"a": 1})
    followed.run(followed.tick())
    followed.deliveries.execute("DELETE FROM dedp.promotion_metrics WHERE day = '2024-01-05'")
    followed.deliveries.execute("DELETE FROM dedp.promotion_deliveries WHERE day = '2024-01-05'")
    followed.tick.cursor = None
    assert followed.run(followed.tick()) == [True]
    assert followed.deliveries.query("SELECT day::text, previous_day FROM dedp.promotion_comparisons") == [
        (MONDAY, None)
    ]
    assert followed.tick().message == "the reports reflect every delivery"


def test_a_supplier_that_the_setting_does_not_name_any_more_is_noted_and_stops_nobody(followed: Followed) -> None:
    followed.deliveries.load("corner shop", FRIDAY, {"a": 1})
    assert "DEDP_SUPPLIERS does not name the supplier: corner shop|2024-01-05" in followed.tick().message
    followed.deliveries.load("supermarket1", FRIDAY, {"a": 1})
    assert [request.partition_key for request in followed.tick().run_requests] == [ONE]


def test_a_dashboard_that_somebody_has_deleted_is_written_again(followed: Followed) -> None:
    followed.deliveries.load("supermarket1", FRIDAY, {"a": 1})
    followed.run(followed.tick())
    contract.dashboard_file().unlink()
    assert followed.tick().run_requests == []
    cursor = Cursor.from_json(followed.tick.cursor)
    due = {"dashboard": cursor.waiting["dashboard"]._replace(due=0.0)}
    followed.tick.cursor = cursor.model_copy(update={"waiting": due}).model_dump_json()
    tick = followed.tick()
    (request,) = tick.run_requests
    assert request.asset_selection == [contract.DASHBOARD]
    assert followed.run(tick) == [True]
    assert contract.dashboard_file().exists()
    assert followed.tick().message == "the reports reflect every delivery"


def test_a_database_that_is_away_changes_nothing_and_is_said(instance: dg.DagsterInstance) -> None:
    away = PostgresResource(dsn="postgresql://127.0.0.1:9/none")
    tick = SensorTicks(promotions_followed, instance, definitions=defs, resources={"postgres": away})
    tick.cursor = Cursor(last_load=5).model_dump_json()
    done = tick()
    assert "PostgreSQL does not answer" in done.message
    assert Cursor.from_json(done.cursor).last_load == 5
    assert Delivery.of_key(ONE) == Delivery("supermarket1", FRIDAY)
