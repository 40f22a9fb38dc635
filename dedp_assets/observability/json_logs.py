"""A log of a process as lines of JSON, with the names of fields that Dagster's own processes use."""

import json
import logging
from datetime import datetime, timezone


class JsonLines(logging.Formatter):
    """Writes a record as one line: `timestamp`, `level`, `logger`, `event`, and `error` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "timestamp": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)
