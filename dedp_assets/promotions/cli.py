"""``dedp generate-promotions``: write deliveries of the suppliers into the landing folder."""

import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import click

from dedp_assets import settings
from dedp_assets.promotions.generator import corrected, dirty_lines, offers, write_delivery
from dedp_assets.wording import counted

# It would fill a disk, and nobody means it.
_MOST_DELIVERIES = 100_000


class _Part(NamedTuple):
    """One delivery to write."""

    supplier: str
    day: date
    marker: bool
    is_again: bool = False


@click.command("generate-promotions")
@click.option("--from", "first", metavar="DAY", help="The first day, such as 2024-01-05.  [default: today, in UTC]")
@click.option("--to", "last", metavar="DAY", help="The last day.  [default: the first day]")
@click.option(
    "--supplier", "suppliers", multiple=True, metavar="NAME", help="Only this supplier; may be given several times."
)
@click.option(
    "--rows", type=click.IntRange(min=1), default=200, show_default=True, help="The products of each delivery."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another number gives other deliveries.")
@click.option(
    "--files", type=click.IntRange(1, 99), default=1, show_default=True, help="The data files of each delivery."
)
@click.option(
    "--dirty", type=click.IntRange(min=0), default=0, show_default=True, help="Bad lines to add to each delivery."
)
@click.option(
    "--twice", multiple=True, metavar="NAME", help="This supplier delivers again at the end, with other prices."
)
@click.option(
    "--late", multiple=True, metavar="NAME", help="This supplier delivers after all others, latest day first."
)
@click.option("--without-marker", multiple=True, metavar="NAME", help="This supplier writes no _SUCCESS.")
@click.option(
    "--pause",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Wait so many seconds before what comes late or again.  [default: 0]",
)
@click.option(
    "--output-path",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write below this folder.  [default: promotions/ in the landing folder]",
)
def generate_promotions(
    first: str | None,
    last: str | None,
    suppliers: tuple[str, ...],
    rows: int,
    seed: int,
    files: int,
    dirty: int,
    twice: tuple[str, ...],
    late: tuple[str, ...],
    without_marker: tuple[str, ...],
    pause: float,
    output_path: Path | None,
) -> None:
    """Write promotions as supermarkets deliver them: FOLDER/SUPPLIER/DAY/data-01.csv ... and then _SUCCESS.

    Each file appears whole, and the marker comes last. The same options give the same deliveries; a delivery that is
    there already is replaced. From day to day most products and prices stay, some change.

    \b
    dedp generate-promotions                                    today's deliveries of all suppliers
    dedp generate-promotions --from 2024-01-01 --to 2024-01-31  a month
    dedp generate-promotions --supplier supermarket1 --seed 7   another version of one delivery
    dedp generate-promotions --twice supermarket2 --late supermarket3 --without-marker supermarket4 --pause 20

    The window of a day closes at 02:00 UTC on the next day. Whatever is written for an earlier day is a late delivery.
    """
    names = _known(suppliers, "--supplier") if suppliers else settings.suppliers()
    for option, chosen in (("--twice", twice), ("--late", late), ("--without-marker", without_marker)):
        _known(chosen, option)
    days = _days(first, last)
    if len(days) * len(names) > _MOST_DELIVERIES:
        raise click.UsageError(f"these are more than {counted(_MOST_DELIVERIES, 'delivery', 'deliveries')}")
    folder = output_path or settings.landing() / "promotions"
    parts = [_Part(name, day, name not in without_marker) for day in days for name in names]
    now = [part for part in parts if part.supplier not in late]
    afterwards = [
        *[part for part in reversed(parts) if part.supplier in late],
        *[part._replace(is_again=True) for part in parts if part.supplier in twice],
    ]
    for path in _written(now, folder, rows, seed, files, dirty):
        click.echo(path)
    if afterwards and pause:
        time.sleep(pause)
    for path in _written(afterwards, folder, rows, seed, files, dirty):
        click.echo(path)


def _written(parts: list[_Part], folder: Path, rows: int, seed: int, files: int, dirty: int) -> Iterator[Path]:
    for supplier, day, marker, is_again in parts:
        good = offers(supplier, day, rows, seed)
        good = corrected(good) if is_again else good
        lines = [*(offer.line for offer in good), *dirty_lines(good, dirty, seed)]
        yield from write_delivery(folder / supplier / day.isoformat(), lines, files=files, marker=marker)


def _known(names: tuple[str, ...], option: str) -> list[str]:
    known = settings.suppliers()
    for name in names:
        if name not in known:
            raise click.UsageError(f"{option} {name}: no such supplier; DEDP_SUPPLIERS has {', '.join(known)}")
    return [name for name in known if name in names]


def _days(first: str | None, last: str | None) -> list[date]:
    begin = _day(first, "--from") if first else datetime.now(timezone.utc).date()
    end = _day(last, "--to") if last else begin
    if end < begin:
        raise click.UsageError(f"--to {end} is before --from {begin}")
    return [begin + timedelta(days=number) for number in range((end - begin).days + 1)]


def _day(text: str, option: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007  a day has no time zone
    except ValueError:
        raise click.UsageError(f"{option} {text}: expected a day such as 2024-01-05") from None
