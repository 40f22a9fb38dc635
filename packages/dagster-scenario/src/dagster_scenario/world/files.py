"""Folders that files arrive in, with the simulated time as their time of change."""

import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path


class Folder:
    """A folder of the world outside. Paths are relative to it."""

    def __init__(self, path: Path, now: Callable[[], datetime], happened: Callable[[str], None]) -> None:
        self.path = path
        self._now, self._happened = now, happened
        path.mkdir(parents=True, exist_ok=True)

    def drop(self, name: str, content: str | bytes = "") -> Path:
        """A complete file arrives: it is written under another name and renamed. FileExistsError when it is there."""
        path = self.path / name
        if path.exists():
            raise FileExistsError(f"{path} is there already; rewrite(...) replaces it, grow(...) appends to it")
        self._write(path, content)
        return self._done(f"{name} arrives ({_size(path)})", path)

    def grow(self, name: str, content: str | bytes) -> Path:
        """A file is being written: more is appended to it; it begins when it is not there."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(_bytes(content))
        return self._done(f"{name} grows to {_size(path)}", path)

    def rewrite(self, name: str, content: str | bytes) -> Path:
        """A file is replaced by another version. FileNotFoundError when it is not there."""
        path = self._there(name)
        self._write(path, content)
        return self._done(f"{name} is rewritten ({_size(path)})", path)

    def delete(self, name: str) -> None:
        """A file or folder goes away. FileNotFoundError when it is not there."""
        path = self._there(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        self._happened(f"{name} is deleted")

    def _there(self, name: str) -> Path:
        path = self.path / name
        if not path.exists():
            near = ", ".join(sorted(str(p.relative_to(self.path)) for p in self.path.rglob("*") if p.is_file())[:10])
            raise FileNotFoundError(f"{path} is not there; there are {near or 'no files'}")
        return path

    def _write(self, path: Path, content: str | bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_bytes(_bytes(content))
        self._stamp(draft)
        draft.rename(path)

    def _stamp(self, path: Path) -> None:
        os.utime(path, (self._now().timestamp(),) * 2)

    def _done(self, text: str, path: Path) -> Path:
        self._stamp(path)
        self._happened(text)
        return path


def _bytes(content: str | bytes) -> bytes:
    return content.encode("utf-8") if isinstance(content, str) else content


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size} bytes" if size < 10_000 else f"{size / 1000:.0f} kB"
