"""``dedp generate``: write the dataset of a YAML configuration."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click
from tqdm import tqdm

from .config import load_config
from .files import Progress
from .run import generate as generate_dataset

_INTERRUPTED = 130

# A terminal redraws the bar in place. In a log file each redraw is a new line, and there should be fewer of them.
_SECONDS_BETWEEN_DRAWS_ON_A_TERMINAL = 0.1
_SECONDS_BETWEEN_DRAWS_IN_A_LOG = 5.0


@click.command("generate")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--seed", type=int, help="Generate the same rows for the same number.")
@click.option(
    "--output-path",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write to this folder instead of the configuration's output_path.",
)
@click.option("--quiet", "-q", is_flag=True, help="Show no progress bar.")
def generate(config: Path, seed: int | None, output_path: Path | None, quiet: bool) -> None:
    """Write the device dataset that CONFIG (a YAML file) describes.

    The paths of the files are printed to the standard output. Ctrl-C stops with exit code 130, and leaves no
    half-written file.
    """
    try:
        settings = load_config(config, output_path=output_path)
        with _progress_bar(settings.rows_in_all, sys.stderr, quiet=quiet) as progress:
            paths = generate_dataset(settings, seed=seed, progress=progress)
    except KeyboardInterrupt:
        click.echo("Stopped. The files contain all loops that were complete.", err=True)
        raise SystemExit(_INTERRUPTED) from None
    for path in paths:
        click.echo(path)


@contextmanager
def _progress_bar(rows: int | None, stream: TextIO, *, quiet: bool) -> Iterator[Progress]:
    draws = _SECONDS_BETWEEN_DRAWS_ON_A_TERMINAL if stream.isatty() else _SECONDS_BETWEEN_DRAWS_IN_A_LOG
    with tqdm(total=rows, unit=" rows", unit_scale=True, file=stream, mininterval=draws, disable=quiet) as progress_bar:
        yield progress_bar.update
