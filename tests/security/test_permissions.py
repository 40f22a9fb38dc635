"""What other users of the machine can reach of a system."""

import os
import stat
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from dedp_assets import settings
from dedp_assets.local_stack.environment import environment
from dedp_assets.local_stack.workspace import sockets
from dedp_assets.resources import embedded_postgres

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of another user")
STRANGER = 65_534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def new_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that does not exist yet."""
    monkeypatch.setenv("DEDP_HOME", str(tmp_path / "new" / "home"))
    return tmp_path / "new" / "home"


def test_nobody_else_can_list_a_new_home(new_home: Path) -> None:
    settings.make_home()
    # Under root, the embedded PostgreSQL server runs as another user, who has to pass through.
    assert mode(new_home) == (0o711 if os.geteuid() == 0 else 0o700)


def test_the_permissions_of_a_home_that_is_there_stay_as_they_are(new_home: Path) -> None:
    new_home.mkdir(parents=True)
    new_home.chmod(0o2775)
    settings.make_home()
    assert mode(new_home) == 0o2775


def test_nobody_else_can_read_the_output_of_runs(
    own_home: Path, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", empty_dsn)
    with environment() as shared:
        assert mode(Path(shared["DAGSTER_HOME"])) == 0o700


def test_nobody_else_can_reach_the_sockets_of_code_servers() -> None:
    with tempfile.TemporaryDirectory() as short:  # the path of a socket has 107 characters at most
        home = Path(short)
        (home / "run").mkdir()
        (home / "run").chmod(0o777)
        with sockets(home) as folder:
            assert (folder, mode(folder)) == (home / "run", 0o700)
        with sockets(home / ("a" * 100)) as elsewhere:
            assert mode(elsewhere) == 0o700


@needs_root
@pytest.mark.parametrize("what", ["folder of somebody else", "link"])
def test_a_runtime_folder_that_somebody_else_has_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Its name is known to everybody, and in /tmp everybody can make it. Its owner could put another socket into it."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    runtime = tmp_path / f"dedp-{os.geteuid()}"
    if what == "link":
        (tmp_path / "elsewhere").mkdir()
        runtime.symlink_to(tmp_path / "elsewhere")
    else:
        runtime.mkdir()
        os.chown(runtime, STRANGER, STRANGER)
    with pytest.raises(embedded_postgres.PostgresNotStarted, match=f"{runtime}, belongs to somebody else or is a link"):
        embedded_postgres.binary("psql")


def test_nobody_else_can_reach_the_socket_of_the_embedded_database(postgres_server: str) -> None:
    host = parse_qs(urlsplit(postgres_server).query)["host"][0]
    (socket,) = Path(host).glob(".s.PGSQL.*[0-9]")
    closed = [folder for folder in socket.parents if not folder.stat().st_mode & stat.S_IXOTH]
    assert closed, [f"{folder} {oct(mode(folder))}" for folder in socket.parents]
