"""Whatever suppliers, runs, daemons and servers do: at rest every table equals a recount of the files that lie there.

    PROMOTION_SCHEDULES=2000 python -m pytest -n 2 tests/model/test_promotions.py

plays that many schedules. One that breaks something is made as small as it gets, and shown with what happened in it.
"""

import os
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import time_machine
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn

from dedp_assets.landing import delivery_copies
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries import loading, measuring
from dedp_assets.promotions.deliveries.assets import promotion_deliveries
from dedp_assets.promotions.reports import announcing, comparing, following
from dedp_assets.promotions.reports import assets as report_assets
from dedp_assets.promotions.reports.assets import promotion_reports
from dedp_assets.promotions.reports.dashboard import written_version
from sensors.pipelines import promotion_reports as followed
from sensors.pipelines import promotions as delivered
from sensors.pipelines import promotions_reconciled as reconciled
from sensors.reconciliation import ReconciliationPlan
from tests.model.promotion_recount import HEADER, Key
from tests.model.promotions import BEGIN, DAYS, DELIVERED, SENSORS, SUPPLIERS, Action, Database, Shop

_SCHEDULES = int(os.environ.get("PROMOTION_SCHEDULES", "20"))
_AT_ONCE = 10

_BAD_LINES = (
    "milk,Milk,much,1.00,2024-01-05,2024-01-12",
    "milk,Milk,0,0,2024-01-05,2024-01-12",
    "milk,Milk,1.00,2.00,2024-01-05,2024-01-12",
    "milk,Milk,1.00,0.50,soon,2024-01-12",
    "milk,Milk,1.00,0.50,2024-01-12,2024-01-05",
    ",Milk,1,1,2024-01-05,2024-01-12",
    "milk,Milk,1,1,2024-01-05,2024-01-12,7",
    "milk,Milk,2.00",
    "",
    HEADER,
)
_PRICES = ("1", "2.00", "2.50", "4", "5.00", "8")
# Of the price.
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def content(seed: int, lines: int | None = None) -> bytes:
    """A data file: the same for the same seed. `lines`: only so many of them, as of a file that is being written."""
    dice = random.Random(seed)
    kind = dice.random()
    if kind < 0.04:
        return b""
    header = "product;price" if kind < 0.08 else HEADER
    found = [header]
    for _ in range(dice.choice((0, 1, 2, 3, 4))):
        if dice.random() < 0.2:
            found.append(dice.choice(_BAD_LINES))
            continue
        product, price = dice.choice(("milk", "tea", "oil", "salt")), dice.choice(_PRICES)
        promotion = float(price) * dice.choice(_SHARES)
        found.append(f"{product},Some {product},{price},{promotion:g},2024-01-05,2024-01-12")
    return ("\n".join(found[: None if lines is None else lines + 1]) + "\n").encode()


# What happens. Where an action makes no sense it does nothing: any part of a schedule is a schedule.


def _deliver(shop: Shop, key: Key, seeds: Sequence[int], marker: str) -> None:
    if marker == "first":
        shop.put(key, "_SUCCESS", b"")
    for number, seed in enumerate(seeds):
        shop.put(key, f"data-{number}.csv", content(seed))
    if marker == "last":
        shop.put(key, "_SUCCESS", b"")


def _write(shop: Shop, key: Key, number: int, seed: int, lines: int | None) -> None:
    shop.put(key, f"data-{number}.csv", content(seed, lines))


def _same_again(shop: Shop, key: Key) -> None:
    for name, written in shop.files(key).items():
        shop.put(key, name, written)


def _delete(shop: Shop, key: Key, name: str) -> None:
    shop.remove(key, name)


def _clear(shop: Shop, key: Key) -> None:
    shutil.rmtree(shop.folder(key), ignore_errors=True)


def _mark(shop: Shop, key: Key) -> None:
    if shop.folder(key).exists():
        shop.put(key, "_SUCCESS", b"")


def _tick(shop: Shop, name: str, meanwhile: Action | None) -> None:
    shop.tick(name, meanwhile=meanwhile)


def _daemon_dies(shop: Shop, name: str) -> None:
    """It has launched what a tick requested, and has not stored the tick's cursor."""
    shop.tick(name, is_stored=False)
    shop.start_daemon()


def _lose_cursor(shop: Shop, name: str, back: int | None) -> None:
    """The cursor is gone, or is an earlier one, as from a backup."""
    known = shop.cursors[name]
    known.append(None if back is None else known[max(0, len(known) - 1 - back)])


def _by_hand(shop: Shop, key: Key, which: str, again: bool) -> None:
    partition = [str(Delivery(*key).key)]
    if which == "reports":
        keys = frozenset({contract.DIFFERENCES, contract.DASHBOARD, contract.NOTIFICATION})
        shop.launch(promotion_reports, keys, partition, {})
    else:
        deliveries = {"all": [contract.RAW, contract.CLEANED, contract.METRICS], "load": [contract.CLEANED]}
        shop.launch(promotion_deliveries, frozenset(deliveries[which]), partition, {"again": again})


def _lose_delivery(shop: Shop, key: Key) -> None:
    """Somebody deletes its row, and so it is not loaded any more."""
    shop.database.execute(f"DELETE FROM dedp.promotion_deliveries WHERE (supplier, day) = ('{key[0]}', '{key[1]}')")


def _read(shop: Shop) -> None:
    shop.check_loads()


def _postgres(shop: Shop, is_away: bool) -> None:
    shop.database.is_away = is_away


def _notifier(shop: Shop, is_away: bool) -> None:
    shop.notifier_is_away = is_away


def _disk(shop: Shop, is_full: bool) -> None:
    shop.disk_is_full = is_full


def _lose_page(shop: Shop) -> None:
    contract.dashboard_file().unlink(missing_ok=True)


def _key(dice: random.Random) -> Key:
    return dice.choice(SUPPLIERS), dice.choice(DAYS)


def _meanwhile(dice: random.Random) -> Action | None:
    return (dice.randrange(1, 8), dice.randrange(4), dice.choice((1, 3, 10, None))) if dice.random() < 0.3 else None


# The weight of each kind of action, and its arguments.
_KINDS: dict[Callable[..., None], tuple[float, Callable[[random.Random], Action]]] = {
    _deliver: (
        3,
        lambda dice: (
            _key(dice),
            [dice.randrange(1000) for _ in range(dice.randrange(1, 4))],
            dice.choice(("last", "last", "last", "first", "none")),
        ),
    ),
    _write: (
        2,
        lambda dice: (_key(dice), dice.randrange(4), dice.randrange(1000), dice.choice((None, None, 1))),
    ),
    _same_again: (0.5, lambda dice: (_key(dice),)),
    _delete: (0.7, lambda dice: (_key(dice), dice.choice(("data-0.csv", "data-1.csv", "_SUCCESS")))),
    _clear: (0.3, lambda dice: (_key(dice),)),
    _mark: (1, lambda dice: (_key(dice),)),
    Shop.let_pass: (3, lambda dice: (dice.choice((1, 11, 61, 61, 3600, 12 * 3600)),)),
    _tick: (9, lambda dice: (dice.choice((*SENSORS, DELIVERED)), _meanwhile(dice))),
    _daemon_dies: (0.5, lambda dice: (dice.choice(SENSORS),)),
    _lose_cursor: (0.4, lambda dice: (dice.choice(SENSORS), dice.choice((None, 1, 5)))),
    Shop.go: (9, lambda dice: (dice.randrange(4), dice.choice((None, None, 1, 5, 10, 20)))),
    Shop.kill: (1.5, lambda dice: (dice.randrange(4), dice.randrange(60))),
    Shop.retry: (0.5, lambda dice: (dice.randrange(4),)),
    _by_hand: (0.7, lambda dice: (_key(dice), dice.choice(("all", "load", "reports")), dice.random() < 0.3)),
    _lose_delivery: (0.2, lambda dice: (_key(dice),)),
    _read: (2, lambda dice: ()),
    _postgres: (0.4, lambda dice: (dice.random() < 0.4,)),
    _notifier: (0.6, lambda dice: (dice.random() < 0.5,)),
    _disk: (0.4, lambda dice: (dice.random() < 0.4,)),
    _lose_page: (0.3, lambda dice: ()),
}


def schedule_of(seed: int) -> list[tuple[Callable[..., None], Action]]:
    """A schedule. Each leaves out some kinds of actions, which makes rare combinations of the others more likely."""
    dice = random.Random(seed)
    kinds = {kind: weight for kind, (weight, _) in _KINDS.items() if weight >= 2 or dice.random() < 0.5}
    chosen = dice.choices(list(kinds), list(kinds.values()), k=dice.randint(15, 60))
    return [(kind, _KINDS[kind][1](dice)) for kind in chosen]


Schedule = list[tuple[Callable[..., None], Action]]


def _of_seeds(first: int, end: int) -> Iterator[tuple[str, Schedule]]:
    return ((f"seed {seed}", schedule_of(seed)) for seed in range(first, end))


class Search:
    """Plays schedules, one after the other, on one database."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database, self._folder = database, folder
        self.log: list[str] = []

    def play(self, schedule: Schedule) -> str | None:
        """What goes wrong in a schedule; None if nothing does."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._database.empty()
        with pytest.MonkeyPatch.context() as patch, time_machine.travel(BEGIN, tick=False) as clock:
            shop = Shop(self._database, self._folder, patch, clock)
            self.log = shop.log
            try:
                for act, arguments in schedule:
                    act(shop, *arguments)
                shop.come_to_rest()
                shop.check_at_rest()
            except AssertionError as error:
                return str(error).partition("\n")[0]
            finally:
                shop.end()
        return None

    def find(self, schedules: Iterable[tuple[str, Schedule]], *, makes_small: bool = True) -> str | None:
        """The first schedule in which something goes wrong, by its name, without the actions that it does not need."""
        for name, schedule in schedules:
            wrong = self.play(schedule)
            if wrong:
                schedule = self._smaller(schedule) if makes_small else schedule
                again = self.play(schedule)
                lines = [f"({act.__name__}, {arguments!r})" for act, arguments in schedule]
                return "\n".join([f"{name}: {wrong}", str(again), *lines, "in which this happened:", *self.log])
        return None

    def _smaller(self, schedule: Schedule) -> Schedule:
        at = 0
        while at < len(schedule):
            less = schedule[:at] + schedule[at + 1 :]
            if self.play(less):
                schedule = less
            else:
                at += 1
        return schedule


@pytest.fixture(scope="module")
def search(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    name = f"promotions_{os.getpid()}"
    with closing(psycopg2.connect(postgres_server)) as server, server.cursor() as cursor:
        server.autocommit = True
        cursor.execute(f"CREATE DATABASE {name}")
        with closing(Database(make_dsn(postgres_server, dbname=name))) as database:
            yield Search(database, tmp_path_factory.mktemp("promotions"))
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("first", range(0, _SCHEDULES, _AT_ONCE))
def test_whatever_happens_the_tables_equal_a_recount_of_the_folders_and_everybody_is_told(
    search: Search, first: int
) -> None:
    found = search.find(_of_seeds(first, min(first + _AT_ONCE, _SCHEDULES)))
    if found:
        pytest.fail(found, pytrace=False)


# What each part is for: without it, the same schedules find what goes wrong.

Break = Callable[[pytest.MonkeyPatch], None]


def _copies_count_as_loaded(patch: pytest.MonkeyPatch) -> None:
    for sensors in (delivered, reconciled):
        patch.setattr(sensors, "is_behind", lambda delivery, copy, loaded: False)


def _first_line_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(loading, "_INSERT", loading._INSERT.replace("file_number DESC", "file_number"))


def _any_figures_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(measuring, "_READ", measuring._READ.replace("(supplier, day, load_number)", "(supplier, day)"))


def _only_events(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconciled, "plan_requests", lambda *arguments: ReconciliationPlan({}, {}))


def _the_next_delivery_stays_as_it_is(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(comparing, "days_to_compare", lambda asked, standings: list(asked))
    patch.setattr(following, "behind", lambda cursor: [])


def _recorded_before_it_is_sent(patch: pytest.MonkeyPatch) -> None:
    def announce(connection: Connection, deliveries: Sequence[Delivery], send: Any, link: str) -> announcing.Announced:
        for news in announcing._unsent(connection, deliveries):
            with connection, connection.cursor() as cursor:
                cursor.execute(announcing._RECORD, [news.supplier, news.day, news.version])
            send(announcing.message(news, link))
        return announcing.Announced([], [])

    patch.setattr(report_assets, "announce", announce)


def _one_message_for_all_versions(patch: pytest.MonkeyPatch) -> None:
    for module, name in ((announcing, "_UNSENT"), (following, "_STANDINGS"), (following, "_BEHIND")):
        sql = getattr(module, name).replace("delivery.version)", "sent.version)")
        patch.setattr(module, name, sql.replace("USING (supplier, day, version)", "USING (supplier, day)"))


def _the_page_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(followed, "read_version", lambda connection, now: written_version(contract.dashboard_file()))


def _a_folder_may_change_while_it_is_scanned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(delivery_copies, "_is_still", lambda directory, scan: True)


def _dagster_need_not_know(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconciled, "_reported", lambda instance, delivery: "")
    loads_behind = reconciled.loads_behind
    patch.setattr(reconciled, "loads_behind", lambda loads, reported: loads_behind(loads, {}))


_ONE, _GOOD = (SUPPLIERS[0], DAYS[0]), [400, 401]
_TAKEN: Schedule = [(_deliver, (_ONE, _GOOD, "last")), (_tick, (DELIVERED, None)), (Shop.go, (0, None))]


def _another_version_during_a_scan(steps: int) -> Schedule:
    another: Schedule = [(_deliver, (_ONE, [404, 408], "last")), (Shop.go, (0, None)), (_read, ())]
    return [*_TAKEN, (_by_hand, (_ONE, "all", False)), (Shop.go, (0, steps)), *another]


def _killed(steps: int) -> Schedule:
    return [*_TAKEN[:-1], (Shop.kill, (0, steps))]


# What is too rare to be found by chance: a schedule, at each of whose steps something else happens.
_RARE: dict[str, tuple[Break, str, Callable[[int], Schedule]]] = {
    "that a folder has to be still": (
        _a_folder_may_change_while_it_is_scanned,
        "never lay there",
        _another_version_during_a_scan,
    ),
    "that what Dagster does not know is taken again": (_dagster_need_not_know, "does not know the metrics", _killed),
}

_WITHOUT: dict[str, tuple[Break, str, int]] = {
    "that a copy is not a load": (_copies_count_as_loaded, "is not loaded", 123),
    "that the last line counts": (_first_line_counts, "promotions, ", 3),
    "that figures are those of a load": (_any_figures_count, "promotion_metrics|come to rest", 7),
    "the comparison of levels": (_only_events, "promotion_metrics|does not know the metrics", 25),
    "that the next delivery is compared again": (_the_next_delivery_stays_as_it_is, "promotion_differences", 62),
    "that a message is recorded once it was sent": (_recorded_before_it_is_sent, "counts as told", 23),
    "that each version is told": (_one_message_for_all_versions, "nobody was told", 11),
    "that the page says what it shows": (_the_page_is_not_looked_at, "the dashboard", 82),
}


def test_a_load_that_was_not_measured_is_measured_although_the_next_version_is_refused(search: Search) -> None:
    key, good, bad = (SUPPLIERS[0], DAYS[0]), [491], [211]
    schedule: Schedule = [
        (_deliver, (key, good, "last")),
        (_tick, (DELIVERED, None)),
        (Shop.kill, (0, 19)),
        (_deliver, (key, bad, "last")),
    ]
    assert search.play(schedule) is None
    assert [line for line in search.log if "no usable line" in line]


@pytest.mark.parametrize(("without", "wrong", "seed"), _WITHOUT.values(), ids=_WITHOUT)
@pytest.mark.slow
def test_without_it_something_goes_wrong(
    search: Search, monkeypatch: pytest.MonkeyPatch, without: Break, wrong: str, seed: int
) -> None:
    without(monkeypatch)
    # Some faults are rare. Each search begins at a seed that is known to find one.
    found = search.find(_of_seeds(seed, seed + 300), makes_small=False)
    assert found, "survives"
    assert re.search(wrong, found.partition("\n")[0]), found


@pytest.mark.parametrize(("without", "wrong", "schedule"), _RARE.values(), ids=_RARE)
@pytest.mark.slow
def test_without_it_something_rare_goes_wrong(
    search: Search, monkeypatch: pytest.MonkeyPatch, without: Break, wrong: str, schedule: Callable[[int], Schedule]
) -> None:
    without(monkeypatch)
    found = search.find(((f"step {steps}", schedule(steps)) for steps in range(60)), makes_small=False)
    assert found, "survives"
    assert wrong in found.partition("\n")[0], found
