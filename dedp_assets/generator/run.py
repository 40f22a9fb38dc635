"""Carries out a configuration: loops, partitions, pauses and files."""

import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

from .config import DataBlocker, GeneratorConfig, SecondsRange
from .errors import OutputError
from .files import Progress, clean_folders, extend_file, write_file
from .lines import LINE_FORMATS
from .rows import devices, stream


def generate(
    config: GeneratorConfig,
    *,
    seed: int | None = None,
    progress: Progress | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Write the dataset that a configuration describes.

    Each run has one generation loop for each partition, or one loop if there are no partitions. A loop adds its rows to
    its file in one step. A continuous configuration runs until KeyboardInterrupt, which leaves the files as the last
    complete loop wrote them.

    Args:
        config: the checked configuration.
        seed: the same number gives the same rows in a file, whatever the other partitions are. None gives other rows
            every time.
        progress: called with the number of rows written since its last call.
        pause: called with the seconds to wait between two loops.

    Returns:
        The paths of the files, in the order of the partitions.

    Raises:
        OutputError: a file cannot be written or extended.
    """
    folder = config.writer.configuration.output_path
    partitions: list[str] = config.writer.partitions or [""]
    line_format = LINE_FORMATS[config.writer.type]
    paths = [folder / partition / line_format.file_name for partition in partitions]
    counts = config.dataset.counts()
    pauses = Random() if seed is None else Random(f"pauses:{seed}")
    try:
        _prepare_folders([path.parent for path in paths], clean=config.writer.configuration.clean_path)
        for run in _runs(config.generator.runs):
            for partition, path in zip(partitions, paths, strict=True):
                if (run, path) != (0, paths[0]):
                    _wait(config.data_blocker, pauses, pause)
                randomness = Random() if seed is None else Random(f"loop:{seed}/{run}/{partition}")
                extend_file(path, stream(counts, randomness), line_format, progress or _no_progress)
    except OSError as error:
        raise _output_error(folder, error) from error
    return paths


def write_csv(
    path: str | Path,
    rows: int,
    *,
    seed: int | str | None,
    duplicates: float = 0,
    missing_fields: float = 0,
    unprocessable_rows: float = 0,
    late_rows: float = 0,
    progress: Progress | None = None,
) -> Path:
    """Write a CSV file of ``rows`` devices in one step, replace an earlier one, and create missing folders.

    Args:
        path: the path of the file.
        rows: how many rows to write, below the header.
        seed: see ``devices``; also for the percentages, from 0 to 100.
        progress: called with the number of rows written since its last call.

    Returns:
        The path of the file.

    Raises:
        ValueError: see ``row_counts``.
        OutputError: the file cannot be written.
    """
    content = devices(
        rows,
        seed=seed,
        duplicates=duplicates,
        missing_fields=missing_fields,
        unprocessable_rows=unprocessable_rows,
        late_rows=late_rows,
    )
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, content, LINE_FORMATS["csv"], progress or _no_progress)
    except OSError as error:
        raise _output_error(target, error) from error
    return target


def _prepare_folders(folders: list[Path], *, clean: bool) -> None:
    if clean:
        clean_folders(folders)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)


def _runs(runs: int | None) -> Iterable[int]:
    return itertools.count() if runs is None else range(runs)


def _wait(blocker: DataBlocker, randomness: Random, pause: Callable[[float], None]) -> None:
    if blocker.type == "sleep" and blocker.configuration:
        pause(_seconds(blocker.configuration.sleep_time_range_seconds, randomness))


def _seconds(between: SecondsRange, randomness: Random) -> float:
    return between.from_ + randomness.random() * (between.to - between.from_)


def _no_progress(rows: int) -> None:
    pass


def _output_error(path: Path, error: OSError) -> OutputError:
    where = error.filename or path
    return OutputError(f"{where}: the dataset cannot be written here: {error.strerror or error}")
