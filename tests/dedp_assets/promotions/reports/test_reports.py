"""The step that reports on deliveries: what a run records, that one failure stops nothing else, and messages."""

import json
from collections.abc import Sequence
from datetime import date, datetime, timezone
from pathlib import Path

import dagster as dg
import pytest

from dedp_assets.errors import DedpError
from dedp_assets.notifications.notification import Notification, NotificationNotSent, NotificationRefused
from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.reports.announcing import News, announce, message
from dedp_assets.promotions.reports.assets import STEP, ChangedDeliveries, promotion_reports
from dedp_assets.resources.postgres import PostgresResource
from tests.promotion_tables import Deliveries

FRIDAY, MONDAY = "2024-01-05", "2024-01-08"
# Nothing can be sent there, and the step is not retried for it.
DOWN = "nowhere"


def report_on(
    deliveries: Deliveries,
    instance: dg.DagsterInstance,
    *keys: str,
    notify: str,
    selection: Sequence[dg.AssetKey] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run the step: for one partition as Dagster does, for several as the sensor does."""
    single = keys[0] if len(keys) == 1 else None
    return dg.materialize(
        [promotion_reports],
        instance=instance,
        partition_key=single,
        selection=selection,
        resources={"postgres": PostgresResource(dsn=deliveries.dsn), "notifier": NotifierResource(target=notify)},
        run_config=None if single else dg.RunConfig(ops={STEP: ChangedDeliveries(deliveries=list(keys))}),
        raise_on_error=False,
    )


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    return tmp_path / "messages"


def messages(inbox: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in inbox.read_text().splitlines()] if inbox.exists() else []


def partitions(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[str | None]:
    found = instance.fetch_materializations(key, limit=100, ascending=True).records
    return [record.partition_key for record in found]


def test_a_run_of_one_partition_compares_draws_and_tells(
    deliveries: Deliveries, instance: dg.DagsterInstance, inbox: Path
) -> None:
    deliveries.load("supermarket1", FRIDAY, {"a": (10, 5)})
    assert report_on(deliveries, instance, f"supermarket1|{FRIDAY}", notify=f"file:{inbox}").success
    assert partitions(instance, contract.DIFFERENCES) == [f"supermarket1|{FRIDAY}"]
    assert partitions(instance, contract.DASHBOARD) == [None]
    assert partitions(instance, contract.NOTIFICATION) == [f"supermarket1|{FRIDAY}"]
    assert "supermarket1" in contract.dashboard_file().read_text()
    (told,) = messages(inbox)
    assert told["key"].startswith(f"promotions/supermarket1/{FRIDAY}/")
    assert "1 product on promotion, at a mean discount of 50.00 %" in told["text"]
    assert told["link"] == contract.dashboard_file().as_uri()


def test_a_run_of_several_deliveries_records_each_partition_and_the_one_after_a_late_one(
    deliveries: Deliveries, instance: dg.DagsterInstance, inbox: Path
) -> None:
    deliveries.load("supermarket1", MONDAY, {"a": 2})
    report_on(deliveries, instance, f"supermarket1|{MONDAY}", notify=f"file:{inbox}")
    deliveries.load("supermarket1", FRIDAY, {"a": 1}, late=True)
    deliveries.load("supermarket2", FRIDAY, {"a": 1})
    keys = [f"supermarket1|{FRIDAY}", f"supermarket2|{FRIDAY}"]
    assert report_on(deliveries, instance, *keys, notify=f"file:{inbox}").success
    assert sorted(map(str, partitions(instance, contract.DIFFERENCES)[1:])) == [
        f"supermarket1|{FRIDAY}",
        f"supermarket1|{MONDAY}",
        f"supermarket2|{FRIDAY}",
    ]
    assert len(messages(inbox)) == 3
    assert [told["severity"] for told in messages(inbox)].count("warning") == 1


def test_each_version_of_a_delivery_is_told_once(
    deliveries: Deliveries, instance: dg.DagsterInstance, inbox: Path
) -> None:
    key = f"supermarket1|{FRIDAY}"
    for price in (1, 1, 2):
        deliveries.load("supermarket1", FRIDAY, {"a": price})
        report_on(deliveries, instance, key, notify=f"file:{inbox}")
        report_on(deliveries, instance, key, notify=f"file:{inbox}")
    assert len({told["key"] for told in messages(inbox)}) == len(messages(inbox)) == 2


def test_a_notifier_that_is_down_stops_nothing_else_and_people_are_told_later(
    deliveries: Deliveries, instance: dg.DagsterInstance, inbox: Path
) -> None:
    deliveries.load("supermarket1", FRIDAY, {"a": 1})
    result = report_on(deliveries, instance, f"supermarket1|{FRIDAY}", notify=DOWN)
    assert not result.success
    assert partitions(instance, contract.DIFFERENCES)[0] == f"supermarket1|{FRIDAY}"
    assert contract.dashboard_file().exists()
    assert partitions(instance, contract.NOTIFICATION) == []
    assert report_on(deliveries, instance, f"supermarket1|{FRIDAY}", notify=f"file:{inbox}").success
    assert len(messages(inbox)) == 1


def test_people_are_told_also_if_the_dashboard_can_not_be_written(
    deliveries: Deliveries, instance: dg.DagsterInstance, inbox: Path
) -> None:
    contract.dashboard_file().parent.parent.joinpath("promotions").write_text("not a folder")
    deliveries.load("supermarket1", FRIDAY, {"a": 1})
    result = report_on(deliveries, instance, f"supermarket1|{FRIDAY}", notify=f"file:{inbox}")
    assert not result.success
    assert "materialize promotions/dashboard again" in _failure(result)
    assert len(messages(inbox)) == 1


def test_nothing_is_told_of_a_delivery_whose_metrics_are_of_another_version(
    deliveries: Deliveries, instance: dg.DagsterInstance, inbox: Path
) -> None:
    deliveries.load("supermarket1", FRIDAY, {"a": 1})
    deliveries.load("supermarket1", FRIDAY, {"a": 2, "b": 1}, is_measured=False)
    assert report_on(deliveries, instance, f"supermarket1|{FRIDAY}", notify=f"file:{inbox}").success
    assert messages(inbox) == []


def test_a_report_before_any_delivery_was_loaded_says_what_to_do(
    empty_dsn: str, instance: dg.DagsterInstance, inbox: Path
) -> None:
    nothing = Deliveries(empty_dsn, is_new=False)
    result = report_on(nothing, instance, f"supermarket1|{FRIDAY}", notify=f"file:{inbox}")
    assert "materialize promotions/raw, promotions/cleaned and promotions/metrics first" in _failure(result)
    assert report_on(nothing, instance, notify=f"file:{inbox}", selection=[contract.DASHBOARD]).success
    nothing.connection.close()


@pytest.mark.parametrize("key", ["supermarket1", "|2024-01-05", "supermarket1|yesterday", "supermarket1|20240105"])
def test_a_run_that_names_what_is_no_delivery_fails_with_that_name(
    deliveries: Deliveries, instance: dg.DagsterInstance, inbox: Path, key: str
) -> None:
    result = report_on(deliveries, instance, key, f"supermarket1|{FRIDAY}", notify=f"file:{inbox}")
    assert f"{key!r} is not a delivery" in _failure(result)


def announced(deliveries: Deliveries, refused: int, error: DedpError) -> tuple[list[str], int]:
    """Tell of six deliveries, of which the first `refused` can't be sent. Returns who was told of, and the tries."""
    tries = []

    def send(notification: Notification) -> None:
        tries.append(notification)
        if len(tries) <= refused:
            raise error

    days = [f"2024-01-0{number}" for number in range(1, 7)]
    for each in days:
        deliveries.load("supermarket1", each, {"a": 1})
    done = announce(deliveries.connection, [Delivery("supermarket1", each) for each in days], send, "")
    assert done.problems == [error] * min(refused, len(tries))
    return [news.delivery.day[-1] for news in done.sent], len(tries)


def test_a_message_that_is_refused_stops_no_other_one(deliveries: Deliveries) -> None:
    assert announced(deliveries, 4, NotificationRefused("no")) == (["5", "6"], 6)


def test_a_notifier_that_does_not_answer_is_not_tried_for_every_delivery_of_a_run(deliveries: Deliveries) -> None:
    assert announced(deliveries, 2, NotificationNotSent("no answer")) == (["3", "4", "5", "6"], 6)
    deliveries.execute("TRUNCATE dedp.promotion_notifications")
    assert announced(deliveries, 6, NotificationNotSent("no answer")) == ([], 3)


NEWS = News(
    "supermarket1",
    date(2024, 1, 5),
    "f" * 64,
    datetime(2024, 1, 5, 17, 30, tzinfo=timezone.utc),
    False,
    0,
    1200,
    24.5,
    70.0,
    date(2024, 1, 4),
    12,
    3,
    40,
)


@pytest.mark.parametrize(
    ("news", "said"),
    [
        (NEWS, "Since 2024-01-04: 12 added, 3 removed, 40 with another price."),
        (NEWS, "It was complete at 2024-01-05 17:30:00 UTC."),
        (NEWS._replace(previous_day=None), "It is the first delivery of this supplier."),
        (NEWS._replace(added=0, removed=0, changed=0), "The products and prices are those of 2024-01-04."),
        (NEWS._replace(rows_quarantined=1), "1 line in quarantine, see dedp.promotion_quarantine."),
        (
            NEWS._replace(is_late=True, ready_at=datetime(2024, 1, 6, 5, tzinfo=timezone.utc)),
            "It was complete at 2024-01-06 05:00:00 UTC, 3 h after the window had closed.",
        ),
    ],
)
def test_a_message_says_what_a_person_wants_to_know(news: News, said: str) -> None:
    assert said in message(news, "file:///page").text


def test_the_subject_of_a_message_says_whose_delivery_it_is_and_whether_it_is_late() -> None:
    told = message(NEWS._replace(is_late=True), "file:///page")
    assert told.subject == "supermarket1 has delivered late for 2024-01-05: 1,200 products, 24.5 % off on average"
    assert told.severity == "warning"
    assert told.key == f"promotions/supermarket1/2024-01-05/{'f' * 64}"
    assert Delivery.of_key("supermarket1|2024-01-05") == NEWS.delivery


def _failure(result: dg.ExecuteInProcessResult) -> str:
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    return str(failed.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]
