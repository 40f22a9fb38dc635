"""The Spark server that a running system shares: found by others, replaced when it dies, gone afterwards."""

import re
from contextlib import contextmanager, suppress

import psutil
import pytest

from dedp_assets.resources import embedded_spark
from dedp_assets.resources.shared_spark import shared_server, shared_url


def java_of(folder):
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() == "java" and any(str(folder) in word for word in process.cmdline()):
                return process
    return None


@pytest.mark.slow
def test_a_shared_server_is_found_replaced_and_gone(tmp_path):
    folder = tmp_path / "spark"
    assert shared_url(folder) is None
    with shared_server(folder) as wait_until_started:
        first = shared_url(folder)
        wait_until_started()
        assert re.fullmatch(r"sc://localhost:\d+/;token=\w+", first)
        assert (folder / "remote").stat().st_mode & 0o077 == 0, "it holds a token"
        java_of(folder).kill()
        while shared_url(folder) == first:
            pass
        assert java_of(folder) is not None
    assert shared_url(folder) is None
    assert java_of(folder) is None


def test_while_it_starts_nobody_is_sent_to_the_one_that_was_killed_before(tmp_path):
    (tmp_path / "remote").write_text("sc://localhost:1/;token=gone")
    with shared_server(tmp_path):
        assert "gone" not in shared_url(tmp_path)


def test_a_server_that_does_not_start_is_an_error_where_somebody_waits_for_it(tmp_path, monkeypatch):
    @contextmanager
    def broken(folder):
        raise embedded_spark.ServerError("there is no Java")
        yield

    monkeypatch.setattr(embedded_spark, "server", broken)
    with pytest.raises(embedded_spark.ServerError, match="no Java"), shared_server(tmp_path) as wait_until_started:
        wait_until_started()
    assert shared_url(tmp_path) is None


def test_what_a_killed_system_has_recorded_is_nobodys(tmp_path):
    folder = tmp_path / "spark"
    folder.mkdir()
    (folder / "shared.lock").touch()
    (folder / "remote").write_text("sc://localhost:1/;token=gone")
    assert shared_url(folder) is None
