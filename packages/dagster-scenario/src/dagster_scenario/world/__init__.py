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
        """An HTTP server on this machine, which answers as it is told.

        Args:
            name: What the timeline calls it.
        """
        from dagster_scenario.world.http import Endpoint

        endpoint = Endpoint(self.clock.now, self.happened, name)
        self._closing.callback(endpoint.close)
        return endpoint

    def postgres(self, name: str = "PostgreSQL") -> "PostgresServer":
        """A PostgreSQL server with an empty database, which can crash.

        Args:
            name: What the timeline calls it.

        Raises:
            ScenarioError: The packages of the extra `postgres` are not installed, or the server does not start.
        """
        try:
            from dagster_scenario.world.postgres import PostgresServer
        except ImportError as error:
            raise _missing("a PostgreSQL server", "postgres", error) from None

        server = PostgresServer(self.happened, name)
        self._closing.callback(server.close)
        return server

    def delta(self, path: str | Path, partition_by: Sequence[str] = ()) -> "Table":
        """A Delta table that others commit to.

        Args:
            path: Its folder.
            partition_by: The columns to partition it by when it is made.

        Raises:
            ScenarioError: The packages of the extra `delta` are not installed.
        """
        try:
            from dagster_scenario.world.delta import Table
        except ImportError as error:
            raise _missing("a Delta table", "delta", error) from None

        return Table(Path(path), partition_by, self.clock.now, self.happened)


def _missing(what: str, extra: str, error: ImportError) -> ScenarioError:
    return ScenarioError(f"{what} needs a package that is missing ({error}): pip install 'dagster-scenario[{extra}]'")
