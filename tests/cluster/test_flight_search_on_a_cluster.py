"""The flight searches on a Spark cluster: what its server says of itself, and a worker that is lost in the middle."""

import pytest

from dedp_assets.flight_search import contract
from dedp_assets.flight_search.aggregations import PER_ROUTE, refresh
from dedp_assets.resources.spark_limits import LimitedSpark, LimitsNotGiven, OutOfTime, SparkLimits
from dedp_assets.resources_from_settings import LakeFromSettings, SparkFromSettings
from tests.cluster.spark_cluster import Cluster
from tests.dedp_assets.flight_search.landed import DAY, event, land, rows, search_ids, take_in


def limited(**limits: float) -> LimitedSpark:
    return LimitedSpark(SparkFromSettings().session, SparkLimits(**limits))  # type: ignore[arg-type]


def test_events_are_taken_in_and_aggregated_although_a_worker_is_killed(cluster: Cluster) -> None:
    land("a.jsonl", *(event(f"s{number}") for number in range(100)), "nonsense")
    take_in()
    cluster.kill_worker(cluster.workers[0])
    land("b.jsonl", event("s99"), event("s100"))
    assert take_in().days == {DAY: 1}
    refresh(PER_ROUTE, [DAY], LakeFromSettings(), limited)
    assert rows(contract.PER_ROUTE, "searches") == [(101,)]


def test_the_server_says_what_its_executors_have_and_refuses_what_they_have_not(cluster: Cluster) -> None:
    spark = limited()
    assert (spark.given.master[:8], spark.given.cores, spark.given.memory) == ("spark://", None, "512m")
    with pytest.raises(LimitsNotGiven, match="has 512m of memory"):
        LimitedSpark(SparkFromSettings().session, SparkLimits(memory="5g"))
    with pytest.raises(LimitsNotGiven, match=r"does not say how many cores.*spark\.cores\.max=4"):
        LimitedSpark(SparkFromSettings().session, SparkLimits(cores=4))


def test_a_query_past_its_time_is_cancelled_on_the_cluster_which_is_free_for_the_next_one(cluster: Cluster) -> None:
    endless = "SELECT count(*) FROM range(0, 10000000) a, range(0, 10000000) b WHERE a.id * b.id % 7 = 3"
    spark = limited(timeout_seconds=5)
    with pytest.raises(OutOfTime, match="the query was cancelled"):
        spark.run("counting for ever", lambda: spark.session.sql(endless).toArrow())
    land("a.jsonl", event("s1"))
    take_in()
    assert search_ids() == ["s1"]
