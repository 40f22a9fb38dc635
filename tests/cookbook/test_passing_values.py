"""Values go through the IO manager and not through Dagster's database; metadata and config do."""

from pathlib import Path

import dagster as dg
import pytest

from dedp_assets.cookbook import passing_values

ASSETS = [passing_values.users, passing_values.greetings, passing_values.rows_of_users]


def test_a_large_value_is_in_a_file_and_the_database_has_its_metadata(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    config = {"ops": {"users": {"config": {"rows": 200_000}}}}
    result = dg.materialize(
        ASSETS,
        run_config=config,
        instance=instance,
        resources={"io_manager": dg.FilesystemIOManager(base_dir=str(tmp_path))},
    )
    assert result.output_for_node("greetings")[0] == "hello user 0"
    (fact,) = result.asset_materializations_for_node("rows_of_users")
    assert fact.metadata["rows"].value == 200_000
    assert (tmp_path / "users").stat().st_size > 2_000_000
    assert sum(len(str(event)) for event in instance.all_logs(result.run_id)) < 200_000


def test_a_parameter_of_the_wrong_type_is_refused_before_a_run() -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="rows"):
        dg.materialize(ASSETS, run_config={"ops": {"users": {"config": {"rows": "many"}}}})
