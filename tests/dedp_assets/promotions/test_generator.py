"""Deliveries to try the pipeline with: realistic, repeatable, written whole and with the marker last."""

import csv
import os
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from dedp_assets.cli import dedp
from dedp_assets.promotions.generator import (
    HEADER,
    MARKER,
    Offer,
    corrected,
    dirty_lines,
    offers,
    write_delivery,
)

FRIDAY, SATURDAY = date(2024, 1, 5), date(2024, 1, 6)


def prices(of: list[Offer]) -> dict[str, str]:
    return {offer.product_id: offer.price for offer in of}


def test_a_delivery_has_as_many_good_products_as_asked_for() -> None:
    found = offers("supermarket1", FRIDAY, 500)
    assert len({offer.product_id for offer in found}) == 500
    for offer in found:
        assert 0 <= float(offer.promotion_price) <= float(offer.price)
        assert float(offer.price) > 0
        assert offer.starts_on <= FRIDAY.isoformat() <= offer.ends_on
        assert next(csv.reader([offer.line])) == list(offer)


def test_the_same_seed_gives_the_same_delivery_and_each_supplier_another() -> None:
    assert offers("supermarket1", FRIDAY, 50) == offers("supermarket1", FRIDAY, 50)
    assert offers("supermarket1", FRIDAY, 50) != offers("supermarket1", FRIDAY, 50, seed=1)
    assert offers("supermarket1", FRIDAY, 50) != offers("supermarket2", FRIDAY, 50)


def test_from_one_day_to_the_next_most_products_and_prices_stay_and_some_change() -> None:
    before, after = prices(offers("supermarket1", FRIDAY, 400)), prices(offers("supermarket1", SATURDAY, 400))
    stay = before.items() & after.items()
    assert 300 < len(stay) < 400
    assert before.keys() - after.keys()
    assert [product for product in before.keys() & after.keys() if before[product] != after[product]]


def test_a_corrected_delivery_is_the_same_one_with_other_prices() -> None:
    before = offers("supermarket1", FRIDAY, 50)
    after = corrected(before)
    assert len(after) == 49
    assert len(prices(before).items() & prices(after).items()) == 39


def test_dirty_lines_are_of_every_kind() -> None:
    good = offers("supermarket1", FRIDAY, 50)
    lines = dirty_lines(good, 7)
    assert len(set(lines)) == 7
    assert lines[0] in [offer.line for offer in good]
    assert len(next(csv.reader([lines[-1]]))) == 5


def test_a_delivery_is_written_with_its_marker_last_and_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    write_delivery(tmp_path, ["a", "b", "c"], files=3)
    written = write_delivery(tmp_path, ["a", "b", "c"], files=2)
    assert [path.name for path in written] == ["data-01.csv", "data-02.csv", MARKER]
    assert sorted(os.listdir(tmp_path)) == sorted(["data-01.csv", "data-02.csv", MARKER])
    assert (tmp_path / "data-02.csv").read_text() == f"{HEADER}\nc\n"
    assert (tmp_path / MARKER).stat().st_mtime_ns >= (tmp_path / "data-02.csv").stat().st_mtime_ns
    write_delivery(tmp_path, ["a"], marker=False)
    assert os.listdir(tmp_path) == ["data-01.csv"]


def run(*arguments: str, expect: int = 0) -> str:
    done = CliRunner().invoke(dedp, ["generate-promotions", *arguments])
    assert done.exit_code == expect, done.output
    return done.output


def test_the_command_writes_all_suppliers_and_days_below_the_landing_folder(own_home: Path) -> None:
    said = run("--from", "2024-01-05", "--to", "2024-01-06", "--rows", "3").splitlines()
    folder = own_home / "landing" / "promotions"
    assert [str(path.relative_to(folder)) for path in map(Path, said)][:3] == [
        "supermarket1/2024-01-05/data-01.csv",
        "supermarket1/2024-01-05/_SUCCESS",
        "supermarket2/2024-01-05/data-01.csv",
    ]
    assert len(said) == 2 * 4 * 2


def test_the_command_delivers_late_twice_and_without_a_marker(tmp_path: Path) -> None:
    chosen = ["--twice", "supermarket1", "--late", "supermarket2", "--without-marker", "supermarket3"]
    said = run("--output-path", str(tmp_path), "--from", "2024-01-05", "--to", "2024-01-06", "--rows", "5", *chosen)
    parts = [Path(line).relative_to(tmp_path).parts[:2] for line in said.splitlines() if line.endswith("data-01.csv")]
    assert parts[-4:] == [
        ("supermarket2", "2024-01-06"),
        ("supermarket2", "2024-01-05"),
        ("supermarket1", "2024-01-05"),
        ("supermarket1", "2024-01-06"),
    ]
    assert not (tmp_path / "supermarket3" / "2024-01-05" / MARKER).exists()
    assert len((tmp_path / "supermarket1" / "2024-01-05" / "data-01.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "yesterday"], "--from yesterday: expected a day such as 2024-01-05"),
        (["--from", "2024-01-05", "--to", "2024-01-04"], "--to 2024-01-04 is before --from 2024-01-05"),
        (["--supplier", "corner"], "--supplier corner: no such supplier; DEDP_SUPPLIERS has supermarket1"),
        (["--late", "corner"], "--late corner: no such supplier"),
        (["--from", "1024-01-05", "--to", "2024-01-04"], "more than 100,000 deliveries"),
    ],
)
def test_the_command_says_what_is_wrong_with_an_option(arguments: list[str], said: str) -> None:
    assert said in " ".join(run(*arguments, expect=2).split())
