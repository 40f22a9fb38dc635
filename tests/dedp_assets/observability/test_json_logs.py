"""A log of a process as lines of JSON."""

import json
import logging
import sys
from pathlib import Path

from dedp_assets.local_stack.processes import commands, with_json_logs
from dedp_assets.local_stack.workspace import Location
from dedp_assets.observability.json_logs import JsonLines


def test_a_record_is_one_line_with_its_traceback() -> None:
    try:
        raise ValueError("no\nmoon")
    except ValueError:
        record = logging.LogRecord("dedp.alerts", logging.ERROR, "", 0, "failed: %s", ("ä",), sys.exc_info())
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["level"], found["logger"], found["event"]) == ("error", "dedp.alerts", "failed: ä")
    assert "no\nmoon" in found["error"]


def test_daemon_web_server_and_code_servers_log_json_and_the_others_get_no_option(tmp_path: Path) -> None:
    started = commands([Location("tides", ("-m", "tides"))], tmp_path, tmp_path / "workspace.yaml", 3000, True)
    with_option = {each.name for each in map(with_json_logs, started) if "--log-format" in each.arguments}
    assert with_option == {"code server of tides", "daemon", "web server"}
