"""The world around a pipeline, as verbs: files, a Delta table, an HTTP endpoint, PostgreSQL."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_scenario.clock import Clock
from dagster_scenario.errors import ScenarioError
from dagster_scenario.world.files import Folder

if TYPE_CHECKING:
    from dagster_scenario.world.delta import Table
    from dagster_scenario.world.http import Endpoint
    from dagster_scenario.world.postgres import PostgresServer


class World:
    """What a scenario can put around the pipelines, and take away or break. All of it ends with the scenario."""

    clock: Clock
    _folder: Path
    _closing: ExitStack
    happened: Callable[[str], None]

    def folder(self, path: str | Path | None = None) -> Folder:
        """A folder that files arrive in; one of the scenario's own by default."""
        return Folder(Path(path) if path else self._folder / "world", self.clock.now, self.happened)

    def http(self, name: str = "HTTP endpoint") -> "Endpoint":
        """An HTTP server on this machine, which answers as it is told. name: what the timeline calls it."""
        from dagster_scenario.world.http import Endpoint

        endpoint = Endpoint(self.clock.now, self.happened, name)
        self._closing.callback(endpoint.close)
        return endpoint

    def postgres(self, name: str = "PostgreSQL") -> "PostgresServer":
        """A PostgreSQL server with an empty database, which can crash. name: what the timeline calls it."""
        from dagster_scenario.world.postgres import PostgresServer

        server = PostgresServer(self.happened, name)
        self._closing.callback(server.close)
        return server

    def delta(self, path: str | Path, partition_by: Sequence[str] = ()) -> "Table":
        """A Delta table that others commit to; partition_by: the columns to partition it by when it is made.

        Raises ScenarioError when the package deltalake is not installed.
        """
        try:
            from dagster_scenario.world.delta import Table
        except ImportError as error:
            raise ScenarioError(
                f"a Delta table needs a package that is missing ({error}): pip install deltalake"
            ) from None

        return Table(Path(path), partition_by, self.clock.now, self.happened)
