"""Dagster's own storage in PostgreSQL, with a connection that each process keeps.

`DagsterPostgresStorage` opens a connection for each query, asks for its tables whenever it is made, which is once in
each tick of a sensor, and asks for columns of its tables at each event. To connect costs PostgreSQL a new process, and
takes longer than the query; the answers never change. Here a process connects once and asks once.

Tables, settings and guarantees are those of `DagsterPostgresStorage`, so either may be used at any time.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config

# Each process keeps one connection. Threads that need one at the same time open more, and close them after use.
_KEPT = 1

_HAS_TABLES = ("tables",)
_TABLES = """
    SELECT to_regclass('runs') IS NOT NULL
       AND to_regclass('instance_info') IS NOT NULL
       AND to_regclass('event_logs') IS NOT NULL
       AND to_regclass('jobs') IS NOT NULL
"""

# What the storages ask of the catalog of the database again and again.
_QUESTIONS = {
    "has_table",
    "has_asset_key_col",
    "_has_asset_key_col_on_connection",
    "has_run_stats_index_cols",
    "has_backfill_id_column",
    "has_bulk_actions_selector_cols",
    "has_bulk_action_job_name_column",
    "has_backfill_tags_table",
    "has_instigators_table",
    "_has_instigators_table",
    "has_secondary_index_table",
    "has_built_index",
    "has_secondary_index",
}


class PooledPostgresStorage(DagsterPostgresStorage):
    """As `DagsterPostgresStorage`, and named in dagster.yaml with the same settings:

    .. code-block:: yaml

        storage:
          custom:
            module: dedp_assets.resources.dagster_storage
            class: PooledPostgresStorage
            config: {postgres_url: {env: DEDP_DAGSTER_STORAGE}}
    """

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
        token_provider: Any = None,
    ) -> None:
        database = _database_of(postgres_url, token_provider)
        makes_tables = should_autocreate_tables and not database.has_tables()
        super().__init__(postgres_url, makes_tables, inst_data, token_provider)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = database.engine
            for question in _QUESTIONS & set(dir(storage)):
                setattr(storage, question, database.remembering(getattr(storage, question)))

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "PooledPostgresStorage":
        return cls(
            pg_url_from_config(config_value),
            config_value.get("should_autocreate_tables", True),
            inst_data,
            get_token_provider_from_config(config_value),
        )


class _Database:
    """The connections of this process to a database, and what the database is known to have."""

    def __init__(self, postgres_url: str, token_provider: Any) -> None:
        self.engine = create_pg_engine(
            postgres_url,
            token_provider,
            isolation_level="AUTOCOMMIT",
            pool_size=_KEPT,
            max_overflow=-1,
            # A kept connection is tried before it is used: PostgreSQL may have been started anew since.
            pool_pre_ping=True,
        )
        self._has: set[tuple[str, ...]] = set()

    def has_tables(self) -> bool:
        """Whether nothing of Dagster's tables has to be made. It is not asked again once it is true."""
        if _HAS_TABLES not in self._has:
            try:
                with self.engine.connect() as connection:
                    if connection.execute(sa.text(_TABLES)).scalar():
                        self._has.add(_HAS_TABLES)
            except sa.exc.OperationalError:
                pass  # Dagster's own code tries again, and says what is wrong
        return _HAS_TABLES in self._has

    def remembering(self, ask: Callable[..., bool]) -> Callable[..., bool]:
        """The same question, which is not asked again once the answer is yes: a migration takes nothing away."""

        def asked(*arguments: Any) -> bool:
            # A connection may be among the arguments, and does not matter.
            key = (ask.__qualname__, *(each for each in arguments if isinstance(each, str)))
            if key not in self._has and ask(*arguments):
                self._has.add(key)
            return key in self._has

        return asked


# By process as well: a fork must not use the connections of its parent.
_databases: dict[tuple[int, str], _Database] = {}


def _database_of(postgres_url: str, token_provider: Any) -> _Database:
    key = os.getpid(), postgres_url
    if key not in _databases:
        _databases[key] = _Database(postgres_url, token_provider)
    return _databases[key]
