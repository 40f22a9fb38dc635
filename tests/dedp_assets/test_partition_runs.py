"""A run over a range of partitions: each with its own result, and a bad one among them stops no other."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import dagster as dg
import pytest

from dedp_assets import partition_runs
from dedp_assets.errors import PermanentError, TransientError
from dedp_assets.partition_runs import Materialized, Problem

DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-11", timezone="UTC")
KEYS = DAYS.get_partition_keys()
NUMBERS = dg.AssetKey("numbers")


Work = Callable[[str], Materialized]
Numbers = tuple[dg.AssetsDefinition, list[str]]


class Bad(PermanentError):
    """What the work raises for a partition that stays bad until somebody acts."""


class NotYet(TransientError):
    """What it raises for a partition that may be good next time."""


class Broken(RuntimeError):
    """A fault of ours, which has no name."""


def asset_doing(work: Work, *, check_names: Collection[str] = (), **options: Any) -> Numbers:
    """An asset that does `work` for each partition, with two retries; and the keys it was done for, in order.

    The options are those of `materialize_each`.
    """
    worked_on: list[str] = []

    @dg.asset(
        key=NUMBERS,
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=dg.RetryPolicy(max_retries=2),
        check_specs=[dg.AssetCheckSpec(name, asset=NUMBERS) for name in check_names],
    )
    def numbers(context: dg.AssetExecutionContext) -> partition_runs.AssetResult:
        def noted_work(key: str) -> Materialized:
            worked_on.append(key)
            return work(key)

        return partition_runs.materialize_each(context, noted_work, **options)

    return numbers, worked_on


def good(key: str) -> Materialized:
    return Materialized(f"version of {key}", {"key": key, "number": KEYS.index(key)})


def good_except(problems: Mapping[str, list[Any]]) -> Work:
    """Work that raises the next of a key's problems each time, and succeeds when none is left."""

    def work(key: str) -> Materialized:
        if problems.get(key):
            raise problems[key].pop(0)
        return good(key)

    return work


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def run_range(
    asset: dg.AssetsDefinition, instance: dg.DagsterInstance, first: str, last: str
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [asset],
        instance=instance,
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        raise_on_error=False,
    )


def run_one(asset: dg.AssetsDefinition, instance: dg.DagsterInstance, key: str) -> dg.ExecuteInProcessResult:
    return dg.materialize([asset], instance=instance, partition_key=key, raise_on_error=False)


def recorded(instance: dg.DagsterInstance) -> dict[str, dict[str, object]]:
    """The metadata of each materialization that the instance knows, by partition. There is at most one for each."""
    found: dict[str, dict[str, object]] = {}
    for record in instance.fetch_materializations(NUMBERS, limit=1000).records:
        assert record.partition_key is not None
        assert record.partition_key not in found
        assert record.asset_materialization is not None
        found[record.partition_key] = {
            name: value.value for name, value in record.asset_materialization.metadata.items()
        }
    return found


def version_of(instance: dg.DagsterInstance, key: str) -> str:
    (record,) = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=NUMBERS, asset_partitions=[key]), limit=1
    ).records
    assert record.asset_materialization is not None
    assert record.asset_materialization.tags is not None
    return record.asset_materialization.tags["dagster/data_version"]


class Failure(NamedTuple):
    """What a failed run shows: the text, and the values beside it."""

    description: str
    shown: dict[str, object]


def failure_of(result: dg.ExecuteInProcessResult) -> Failure:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    return Failure(data.description or "", {name: value.value for name, value in data.metadata.items()})


def test_each_partition_of_a_range_has_its_own_metadata(instance: dg.DagsterInstance) -> None:
    asset, worked_on = asset_doing(good)
    assert run_range(asset, instance, KEYS[2], KEYS[6]).success
    assert worked_on == KEYS[2:7]
    assert recorded(instance) == {key: {"key": key, "number": KEYS.index(key)} for key in KEYS[2:7]}


def test_one_partition_alone_is_a_range_of_one(instance: dg.DagsterInstance) -> None:
    asset, worked_on = asset_doing(good)
    assert run_one(asset, instance, KEYS[3]).success
    assert worked_on == [KEYS[3]]
    assert recorded(instance) == {KEYS[3]: {"key": KEYS[3], "number": 3}}
    assert version_of(instance, KEYS[3]) == f"version of {KEYS[3]}"


@pytest.mark.parametrize("bad", [KEYS[2], KEYS[4], KEYS[6]], ids=["the first", "one in the middle", "the last"])
def test_a_bad_partition_does_not_stop_the_others_and_theirs_are_recorded(
    instance: dg.DagsterInstance, bad: str
) -> None:
    asset, worked_on = asset_doing(good_except({bad: [Bad("its file is rubbish")]}))
    result = run_range(asset, instance, KEYS[2], KEYS[6])
    assert not result.success
    assert worked_on == KEYS[2:7]
    assert recorded(instance) == {key: {"key": key, "number": KEYS.index(key)} for key in KEYS[2:7] if key != bad}


def test_a_recorded_materialization_beside_a_bad_one_has_its_own_data_version(instance: dg.DagsterInstance) -> None:
    asset, _ = asset_doing(good_except({KEYS[2]: [Bad("rubbish")]}))
    run_range(asset, instance, KEYS[1], KEYS[3])
    assert [version_of(instance, key) for key in (KEYS[1], KEYS[3])] == [
        f"version of {KEYS[1]}",
        f"version of {KEYS[3]}",
    ]


def test_the_failure_names_each_bad_partition_with_its_reason(instance: dg.DagsterInstance) -> None:
    problems = {KEYS[1]: [Bad("its file is rubbish")], KEYS[3]: [Bad("its file is empty")]}
    asset, _ = asset_doing(good_except(problems))
    failure = failure_of(run_range(asset, instance, KEYS[0], KEYS[4]))
    assert failure.description == (
        f"partition {KEYS[1]}: its file is rubbish\n"
        f"partition {KEYS[3]}: its file is empty\n"
        "The other 3 partition(s) of this run are done."
    )
    assert failure.shown["failed_partitions"] == [KEYS[1], KEYS[3]]


def test_the_failure_shows_what_is_known_of_each_bad_partition(instance: dg.DagsterInstance) -> None:
    asset, _ = asset_doing(
        good_except({KEYS[1]: [Bad("rubbish")], KEYS[3]: [NotYet("empty")]}),
        explain=lambda key, error: Problem(f"the file of {key} is {error}", {"lines": KEYS.index(key)}),
    )
    failure = failure_of(run_range(asset, instance, KEYS[0], KEYS[3]))
    assert failure.description == (
        f"partition {KEYS[1]}: the file of {KEYS[1]} is rubbish\n"
        f"partition {KEYS[3]}: the file of {KEYS[3]} is empty\n"
        "The other 2 partition(s) of this run are done."
    )
    assert failure.shown["failed_partitions"] == [KEYS[1], KEYS[3]]
    assert failure.shown["lines"] == {KEYS[1]: 1, KEYS[3]: 3}


def test_a_failure_has_no_traceback_of_the_exceptions_behind_it(instance: dg.DagsterInstance) -> None:
    asset, _ = asset_doing(good_except({KEYS[1]: [Bad("rubbish")]}))
    (event,) = [event for event in run_one(asset, instance, KEYS[1]).all_events if event.is_step_failure]
    assert event.step_failure_data.error is not None
    assert event.step_failure_data.error.cause is None
    assert event.step_failure_data.error.context is None


def test_when_all_are_bad_nothing_is_recorded_and_all_are_named(instance: dg.DagsterInstance) -> None:
    asset, worked_on = asset_doing(good_except({key: [Bad(f"no {key}")] for key in KEYS}))
    failure = failure_of(run_range(asset, instance, KEYS[0], KEYS[-1]))
    assert worked_on == KEYS
    assert recorded(instance) == {}
    assert failure.description == "\n".join(f"partition {key}: no {key}" for key in KEYS)


def test_a_partition_that_may_be_good_next_time_is_tried_again(instance: dg.DagsterInstance) -> None:
    asset, worked_on = asset_doing(good_except({KEYS[1]: [NotYet("wait"), NotYet("wait")]}))
    assert run_one(asset, instance, KEYS[1]).success
    assert worked_on == [KEYS[1]] * 3
    assert recorded(instance).keys() == {KEYS[1]}


def test_a_range_is_tried_again_as_a_whole_for_one_that_may_be_good_next_time(instance: dg.DagsterInstance) -> None:
    asset, worked_on = asset_doing(good_except({KEYS[1]: [NotYet("wait")]}))
    assert run_range(asset, instance, KEYS[0], KEYS[2]).success
    assert worked_on == [*KEYS[:3], *KEYS[:3]]
    assert instance.get_materialized_partitions(NUMBERS) == set(KEYS[:3])


def test_a_partition_that_is_never_good_is_tried_as_often_as_the_policy_says(instance: dg.DagsterInstance) -> None:
    asset, worked_on = asset_doing(good_except({KEYS[1]: [NotYet("wait")] * 9}))
    result = run_one(asset, instance, KEYS[1])
    assert not result.success
    assert worked_on == [KEYS[1]] * 3
    assert "wait" in failure_of(result).description


def test_a_partition_that_is_bad_for_good_is_tried_once(instance: dg.DagsterInstance) -> None:
    asset, worked_on = asset_doing(good_except({KEYS[1]: [Bad("rubbish")]}))
    assert not run_one(asset, instance, KEYS[1]).success
    assert worked_on == [KEYS[1]]


def test_a_range_with_one_bad_for_good_is_not_tried_again_for_the_sake_of_another(instance: dg.DagsterInstance) -> None:
    asset, worked_on = asset_doing(good_except({KEYS[1]: [Bad("rubbish")], KEYS[2]: [NotYet("wait")]}))
    failure = failure_of(run_range(asset, instance, KEYS[0], KEYS[3]))
    assert worked_on == KEYS[:4]
    assert failure.shown["failed_partitions"] == [KEYS[1], KEYS[2]]


def test_an_error_that_nobody_expects_ends_the_run_and_is_retried(instance: dg.DagsterInstance) -> None:
    asset, worked_on = asset_doing(good_except({KEYS[1]: [Broken("the server is gone")]}))
    assert run_range(asset, instance, KEYS[0], KEYS[2]).success
    assert worked_on == [KEYS[0], KEYS[1], *KEYS[:3]]
    assert recorded(instance).keys() == set(KEYS[:3])


def test_checks_are_evaluated_once_all_the_work_is_done(instance: dg.DagsterInstance) -> None:
    done_at_check: list[list[str]] = []

    def checks() -> list[dg.AssetCheckResult]:
        done_at_check.append(list(worked_on))
        return [dg.AssetCheckResult(check_name="in_order", passed=True, metadata={"seen": len(worked_on)})]

    asset, worked_on = asset_doing(good, checks=checks, check_names=["in_order"])
    result = run_range(asset, instance, KEYS[0], KEYS[4])
    assert result.success
    assert done_at_check == [KEYS[:5]]
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.passed
    assert evaluation.metadata["seen"].value == 5


def test_the_data_version_of_a_range_changes_with_that_of_any_of_its_partitions(instance: dg.DagsterInstance) -> None:
    def versions_when(changed: str | None) -> Work:
        return lambda key: Materialized("new" if key == changed else "old", {})

    versions = []
    for changed in [None, KEYS[1], None]:
        asset, _ = asset_doing(versions_when(changed))
        result = run_range(asset, instance, KEYS[0], KEYS[2])
        assert result.success
        (stamped,) = {version_of(instance, key) for key in KEYS[:3]}
        versions.append(stamped)
    assert versions[0] == versions[2] != versions[1]
