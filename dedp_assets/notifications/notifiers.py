"""Messages into a log, and into a file."""

import fcntl
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

import dagster as dg

from dedp_assets.notifications.notification import Notification, NotificationNotSent

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LogNotifier:
    """Writes messages to Dagster's log: in a run, they are events of that run."""

    def send(self, notification: Notification) -> None:
        """Log the message, with its severity as the level."""
        parts = [f"{notification.subject} (key {notification.key})", notification.text, notification.link or ""]
        text = "\n".join(part for part in parts if part)
        dg.get_dagster_logger("notifications").log(_LEVELS[notification.severity], "%s", text)


class FileNotifier:
    """Appends messages to a file of JSON lines, which many processes may share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, notification: Notification) -> None:
        """Append the message as one line. Raises NotificationNotSent if the file cannot be written."""
        line = json.dumps(asdict(notification), ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # A process that was killed may have left half a line.
                if (size := file.seek(0, os.SEEK_END)) and os.pread(file.fileno(), 1, size - 1) != b"\n":
                    line = b"\n" + line
                file.write(line)
        except OSError as error:
            raise NotificationNotSent(
                f"{self._path}: the notification {notification.key} cannot be written: {error.strerror or error}; "
                "check DEDP_NOTIFY, the folder, its permissions and its disk"
            ) from error
