"""Schedules say what happens in which order. They are made at random, played, checked at rest, and made smaller."""

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from dedp_assets.late_data_integrator import contract, state
from dedp_assets.late_data_integrator.device_counts import InputVersion
from sensors import reconciliation
from sensors.pipelines import late_data_integrator as late_data
from tests.model.deployment import AUTOMATION, COMMITS, RECONCILIATION, Broken, Deployment, Run, System
from tests.model.tables import Devices, Rows, snapshot_of

# 2024-01-03 is today. The last one has not begun; the others can't have partitions.
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]
ODD_DAYS = ["2024-01-04", "2023-12-31", ""]

Action = tuple[str | int, ...]


@dataclass(frozen=True)
class Played:
    """The schedule that was played, and the deployment after it."""

    schedule: list[Action]
    world: Deployment

    @property
    def broken(self) -> list[Broken]:
        return self.world.broken

    def __str__(self) -> str:
        return "\n".join(
            [
                *(f"{broken.kind}: {broken.text}" for broken in self.broken),
                "by the schedule",
                *(f"    {action!r}," for action in self.schedule),
                "in which this happened:",
                *(f"    {line}" for line in self.world.log),
            ]
        )


# What an action does, by its first word. Where it makes no sense it does nothing: any part of a schedule is a schedule.
_ACTIONS: dict[str, Callable[..., object]] = {}


def _action(function: Callable[..., object]) -> Callable[..., object]:
    _ACTIONS[function.__name__.removeprefix("_")] = function
    return function


@_action
def _append(world: Deployment, *days: str) -> None:
    world.devices.append(days)


@_action
def _overwrite(world: Deployment, day: str) -> None:
    world.devices.overwrite(day)


@_action
def _delete(world: Deployment, day: str) -> None:
    if world.devices.of_day(day):
        world.devices.delete(day)


@_action
def _compact(world: Deployment, day: str) -> None:
    if world.devices.of_day(day):
        world.devices.compact(day)


@_action
def _restore(world: Deployment, day: str, back: int) -> None:
    version = max(world.devices.version - back, 0)
    files = world.devices.of_day(day, version)
    if world.devices.versions and files != world.devices.of_day(day) and world.devices.are_there(files):
        world.devices.restore(day, version)


@_action
def _clean_log(world: Deployment) -> None:
    if world.devices.versions:
        world.devices.clean_log()


@_action
def _vacuum(world: Deployment) -> None:
    world.devices.vacuum()


@_action
def _put_back(world: Deployment, back: int) -> None:
    version = max(world.devices.version - back, 0)
    if world.devices.versions and world.devices.cleaned <= version < world.devices.version:
        world.devices.put_back(version)


@_action
def _make_anew(world: Deployment) -> None:
    if world.devices.versions:
        world.devices.make_anew()


@_action
def _delete_by_vector(world: Deployment, day: str) -> None:
    world.devices.delete_by_vector(day)


@_action
def _purge(world: Deployment, day: str) -> None:
    if any(file.vector for file in world.devices.of_day(day).values()):
        world.devices.purge(day)


@_action
def _create_over(world: Deployment) -> None:
    if world.devices.versions:
        world.devices.create_over()


@_action
def _restore_table(world: Deployment, back: int) -> None:
    version = max(world.devices.version - back, 0)
    if world.devices.versions and world.devices.are_there(world.devices.versions[version].files):
        world.devices.restore_table(version)


@_action
def _put_back_earlier(world: Deployment) -> None:
    world.devices.put_back_earlier()


@_action
def _write_again(world: Deployment, day: str, how: str) -> None:
    """Of a path that the day has ("in place", "swapped", "unchanged"), or had ("removed")."""
    paths = world.devices.gone(day) if how == "removed" else list(world.devices.of_day(day))
    if paths:
        world.devices.write_again(day, paths[0], swapped=how == "swapped", other_rows=how != "unchanged")


@_action
def _compact_and_add_again(world: Deployment, day: str) -> None:
    if len(world.devices.of_day(day)) > 1:
        world.devices.compact(day, again=True)


@_action
def _rename_columns(world: Deployment) -> None:
    if world.devices.versions:
        world.devices.rename_columns(not world.devices.is_renamed)


@_action
def _lose_commit(world: Deployment, back: int) -> None:
    version = world.devices.version - back
    if version > world.devices.cleaned and world.devices.has_commit(version):
        world.devices.lose_commit(version)


@_action
def _hint(world: Deployment, back: int | None = None) -> None:
    """`_last_checkpoint` names a version that may have no checkpoint, or is gone."""
    if world.devices.versions:
        world.devices.hint(None if back is None else max(world.devices.version - back, 0))


@_action
def _outage_begins(world: Deployment) -> None:
    world.begin_outage()


@_action
def _outage_ends(world: Deployment) -> None:
    world.end_outage()


@_action
def _lose_cursor(world: Deployment, name: str) -> None:
    world.lose_cursor(name)


@_action
def _let_an_hour_pass(world: Deployment) -> None:
    if not world.is_away:
        _let_pass(world)


@_action
def _jump(world: Deployment, hours: int) -> None:
    world.jump(hours)


@_action
def _tick(world: Deployment, name: str, steps: int | None = None) -> None:
    if not world.is_away and (name != RECONCILIATION or world.system.reconciled):
        world.tick(name, steps)


@_action
def _daemon_dies(world: Deployment) -> None:
    if world.ticks:
        world.kill_daemon()


@_action
def _pass(world: Deployment, seconds: int) -> None:
    world.now += timedelta(seconds=seconds)


@_action
def _run_by_hand(world: Deployment, first: int, last: int) -> None:
    if not world.is_away:
        world.launch_by_hand(DAYS[first : last + 1])


@_action
def _notice(world: Deployment) -> None:
    if not world.is_away:
        world.notice()


@_action
def _retry(world: Deployment) -> None:
    if not world.is_away:
        world.retry()


@_action
def _go(world: Deployment, run: int, steps: int | None = None) -> None:
    _with_run(world, run, lambda run: world.go_on(run, steps))


@_action
def _die(world: Deployment, run: int, steps: int = 0) -> None:
    _with_run(world, run, world.kill, steps)


@_action
def _fail(world: Deployment, run: int, steps: int = 0) -> None:
    _with_run(world, run, world.fail, steps)


@_action
def _fail_for_good(world: Deployment, run: int, steps: int = 0) -> None:
    def fail(run: Run) -> None:
        while run in world.runs and not run.dead:
            world.fail(run)
            if world.is_away and not run.steps:
                return

    _with_run(world, run, fail, steps)


@_action
def _cancel(world: Deployment, run: int, steps: int = 0) -> None:
    if not world.is_away:
        _with_run(world, run, world.cancel, steps)


def _with_run(world: Deployment, number: int, do: Callable[[Run], None], steps: int = 0) -> None:
    """Let a run move `steps` steps. If it has not ended then, do something with it."""
    alive = [run for run in world.runs if not run.dead]
    if number < len(alive):
        run = alive[number]
        if steps:
            world.go_on(run, steps)
        if run in world.runs and not run.dead:
            do(run)


def _do(world: Deployment, action: Action) -> None:
    word, *arguments = action
    world.say(f"-- {' '.join(str(word) for word in action)}")
    _ACTIONS[str(word).replace(" ", "_")](world, *arguments)


def play(system: System, instance: dg.DagsterInstance, schedule: Sequence[Action]) -> Played:
    """Play the schedule, let everything come to rest, and check the deployment."""
    world = Deployment(system, instance)
    for action in schedule:
        _do(world, action)
    return _finish(world, list(schedule))


def play_at_random(
    system: System, instance: dg.DagsterInstance, kinds: "Kinds", seed: int, rare: Sequence["Kinds"] = ()
) -> Played:
    """Play a random schedule. Each action is chosen from those that are possible at that moment.

    Args:
        rare: kinds of actions that belong together, and that only some of the schedules have.
    """
    world = Deployment(system, instance)
    chance = random.Random(seed)
    taste = Taste.draw(kinds, rare, chance)
    # Half of them begin where every day was processed, and whatever comes is late.
    begun = [*BEGUN[:1], *[("let an hour pass",)] * 2] if rare and chance.random() < 0.5 else BEGUN
    schedule = list(begun) if chance.random() < 0.5 else []
    for action in schedule:
        _do(world, action)
    # What is rare shows best where not much else happens afterwards, which would make up for it.
    for _ in range(chance.randint(*((3, 16) if rare and chance.random() < 0.7 else (6, 30)))):
        possible = {kind: weight for kind, weight in taste.weights.items() if _is_possible(world, kind)}
        kind = chance.choices(list(possible), list(possible.values()))[0]
        action = taste.action(world, kind, chance)
        schedule.append(action)
        _do(world, action)
    return _finish(world, schedule)


_OF_A_TABLE = (
    *("compact", "delete", "restore", "vacuum", "clean log", "put back", "make anew", "create over"),
    *("delete by vector", "write again", "compact and add again", "rename columns", "lose commit", "hint"),
    "let an hour pass",
)
_OF_DAGSTER = ("let an hour pass", "tick", "run by hand", "notice", "retry", "cancel", "daemon dies", "outage begins")


def _is_possible(world: Deployment, kind: str) -> bool:
    """Whether an action of this kind would do something now. If not, it would only cost time."""
    if world.is_away and kind in _OF_DAGSTER:
        return False
    if kind in _OF_RUNS:
        return any(not run.dead for run in world.runs)
    if kind in _OF_A_TABLE:
        return bool(world.devices.versions)
    if kind == "notice":
        return any(run.dead for run in world.runs)
    others = {
        "retry": world.to_retry,
        "daemon dies": world.ticks,
        "purge": world.devices.has_vectors,
        "restore table": _since_the_table_before(world),
        "put back earlier": world.devices.has_earlier,
        "outage ends": world.is_away,
    }
    return bool(others.get(kind, True))


@dataclass(frozen=True)
class Taste:
    """What one schedule is made of. Each leaves out some kinds of actions, and likes some days and much haste more
    than others do: so that what rarely happens together does, in some of them."""

    weights: dict[str, float]
    days: list[str]
    haste: float  # how often ticks and runs go to their end at once

    @classmethod
    def draw(cls, kinds: "Kinds", rare: Sequence["Kinds"], chance: random.Random) -> "Taste":
        weights = {
            kind: weight * chance.choice((0.3, 1, 3))
            for kind, weight in kinds.items()
            if kind in _ALWAYS or chance.random() < 0.6
        }
        if rare:
            weights = _with_some(weights, rare, chance)
        days = chance.choice([DAYS, DAYS[:1], DAYS[1:2], DAYS[:2], [*DAYS, *ODD_DAYS]])
        return cls(weights, days, chance.choice((0.2, 0.5, 0.8)))

    def action(self, world: Deployment, kind: str, chance: random.Random) -> Action:
        """An action of a kind."""
        day = chance.choice(self.days)
        in_haste = chance.random() < self.haste
        if kind == "append":
            # Somebody writes into all days at times; today's data is what closes yesterday.
            other = chance.choice(DAYS)
            return (kind, *sorted({day, other})) if chance.random() < 0.4 else (kind, day)
        if kind in ("overwrite", "delete", "compact", "delete by vector", "compact and add again"):
            return (kind, day)
        if kind == "purge":
            return (kind, chance.choice(sorted({file.day for file in world.devices.files.values() if file.vector})))
        if kind == "write again":
            return (kind, day, chance.choice(("in place", "swapped", "unchanged", "removed")))
        if kind in ("put back", "lose commit"):
            return (kind, chance.randint(1, 3))
        if kind == "restore table":
            # To what was there before the table that is there now, mostly.
            return (kind, chance.choice((_since_the_table_before(world), chance.randint(1, 4))))
        if kind == "hint":
            return chance.choice([(kind,), (kind, chance.randint(-1, 4))])
        if kind == "lose cursor":
            return (kind, chance.choice((COMMITS, AUTOMATION, RECONCILIATION)))
        if kind == "jump":
            return (kind, chance.choice((-1, -1, 1, 7, 24, 72)))
        if kind == "restore":
            return (kind, day, chance.randint(1, 3))
        if kind == "tick":
            name = chance.choice((COMMITS, AUTOMATION, *([RECONCILIATION] if world.system.reconciled else [])))
            return (kind, name) if in_haste else (kind, name, chance.randint(1, 3))
        if kind == "pass":
            return (kind, chance.choice((30, 60, 120, 3_600, 86_400)))
        if kind == "run by hand":
            first = chance.choice([number for number, day in enumerate(DAYS) if day in self.days])
            return (kind, first, chance.choice((first, first, len(DAYS) - 1)))
        if kind in _OF_RUNS:
            run = chance.randrange(sum(not run.dead for run in world.runs))
            if kind == "go":
                return (kind, run) if in_haste else (kind, run, chance.randint(1, 6))
            return (kind, run, chance.randint(0, 7))
        return (kind,)


def _since_the_table_before(world: Deployment) -> int:
    """How many versions ago the same log had another table; 0 if it never had one."""
    devices = world.devices
    others = [v for v, version in enumerate(devices.versions) if version.table_id != devices.table_id]
    return devices.version - max(others, default=devices.version)


def _with_some(weights: dict[str, float], rare: Sequence["Kinds"], chance: random.Random) -> dict[str, float]:
    """Most schedules have some of the rare kinds, and then many such actions, often with time between them."""
    some = chance.sample(rare, min(len(rare), chance.choice((0, 1, 1, 1, 2, 2, 3))))
    found = {kind: weight for kinds in some for kind, weight in kinds.items()}
    much = chance.choice((1, 3, 9))
    if found and chance.random() < 0.5:
        return {"append": 0.3, "overwrite": 0.1, "let an hour pass": sum(found.values()), **found}
    return weights | {"let an hour pass": chance.choice((1, 3))} | {kind: much * found[kind] for kind in found}


# The weight of each kind of action.
Kinds = dict[str, float]

_ALWAYS = ("append", "tick", "go")
_OF_RUNS = ("go", "die", "fail", "fail for good", "cancel")
# Nobody dies and nothing fails: what the automation condition has to survive by itself.
CALM: Kinds = {
    "append": 2,
    "overwrite": 0.7,
    "delete": 0.7,
    "compact": 0.7,
    "restore": 0.4,
    "tick": 6,
    "pass": 1,
    "go": 6,
    "run by hand": 0.7,
}
# And all that can go wrong.
ROUGH: Kinds = {
    **CALM,
    "make anew": 0.3,
    "put back": 0.2,
    "clean log": 0.4,
    "vacuum": 0.5,
    "daemon dies": 1,
    "die": 1,
    "fail": 0.7,
    "fail for good": 0.4,
    "cancel": 0.4,
    "notice": 2,
    "retry": 2,
}

# Kinds that are rare, those together that are of one sort.
VECTORS: Kinds = {"delete by vector": 0.7, "purge": 0.7}
OVERWRITTEN_TABLES: Kinds = {"create over": 0.6, "restore table": 0.8}
TABLES_MADE_ANEW: Kinds = {"make anew": 0.5, "put back earlier": 0.5}
PATHS: Kinds = {"write again": 1, "compact and add again": 0.5}
COLUMNS: Kinds = {"rename columns": 0.7}
LOGS: Kinds = {"lose commit": 0.7, "hint": 0.7}
OUTAGES: Kinds = {"outage begins": 0.5, "outage ends": 0.7}
CURSORS: Kinds = {"lose cursor": 0.6}
CLOCKS: Kinds = {"jump": 0.7}
RARE = [VECTORS, OVERWRITTEN_TABLES, TABLES_MADE_ANEW, PATHS, COLUMNS, LOGS, OUTAGES, CURSORS, CLOCKS]
# Of those, what the condition has to survive by itself: all that it is told of. Of what a table had that is gone, only
# the commit sensor's cursor tells; it may not be lost.
TOLD = [OVERWRITTEN_TABLES, TABLES_MADE_ANEW, PATHS, LOGS, CLOCKS]

BEGUN: list[Action] = [("append", *DAYS), ("tick", COMMITS), ("tick", AUTOMATION), ("go", 0), ("go", 0)]


# At rest

_ROUNDS = 12


def _finish(world: Deployment, schedule: list[Action]) -> Played:
    _put_right(world)
    world.say("-- and then everything comes to rest")
    if not _comes_to_rest(world):
        world.broken.append(Broken("no rest", f"after {_ROUNDS} hours something is still going on"))
    else:
        world.broken += _wrong_at_rest(world)
    return Played(schedule, world)


def _put_right(world: Deployment) -> None:
    """Repair what only the writers can repair. Until they do, nothing can be counted or requested."""
    if world.is_away:
        _do(world, ("outage ends",))
    if world.devices.is_renamed:
        _do(world, ("rename columns",))
    for day in sorted({file.day for file in world.devices.files.values() if file.vector}):
        _do(world, ("purge", day))


def _comes_to_rest(world: Deployment) -> bool:
    quiet = 0
    # Each hour that the clock was set back may have to pass once more.
    for _ in range(_ROUNDS + world.set_back):
        before = (len(world.launched), world.counts.version)
        _let_pass(world)
        moved = before != (len(world.launched), world.counts.version)
        quiet = 0 if moved or world.runs or world.is_waiting() else quiet + 1
        # The reconciliation compares: when it waits for nothing, nothing will come. Events may still be in a cursor.
        if quiet == (1 if world.system.reconciled else 2):
            return True
    return False


def _let_pass(world: Deployment) -> None:
    """Play an hour in which nothing goes wrong: everything that is unfinished ends, and every sensor ticks once."""
    for name in list(world.ticks):
        world.tick(name)
    while world.runs or world.to_retry:
        for run in [run for run in world.runs if not run.dead]:
            world.go_on(run)
        world.notice()
        world.retry()
    world.now += timedelta(seconds=reconciliation.LONGEST_PAUSE_SECONDS)
    for name in (COMMITS, AUTOMATION, *([RECONCILIATION] if world.system.reconciled else [])):
        world.tick(name)


def _wrong_at_rest(world: Deployment) -> list[Broken]:
    if not world.devices.versions:
        return []
    reported = world.instance.get_materialized_partitions(contract.DEVICES)
    closed = [day for day in DAYS if day in reported and _next(day) in reported]
    found = [broken for day in closed for broken in _lost(world, day)]

    recorded = {day: recorded for (_, day), recorded in world.counts.recorded.items()}
    rows = state.state_rows(recorded, state.days_in_progress(world.instance))
    found += [Broken("still processing", str(row)) for row in rows if row.is_processed]
    unseen = {day for day in DAYS if world.devices.of_day(day)} - reported
    if not world.devices.log_is_uncertain and not world.devices.was_put_back:
        # And those that are gone by now.
        unseen |= set().union(*world.devices.changed) & set(DAYS) - reported
    if unseen:
        found.append(Broken("never reported", ", ".join(sorted(unseen))))
    found += _not_told(world)
    return [*found, *_too_many_runs(world)]


def _not_told(world: Deployment) -> Iterator[Broken]:
    """Days whose last write is unknown to Dagster."""
    devices, told = world.devices, late_data.reported_versions(world.instance)
    recorded = [known.version for (table_id, _), known in world.counts.recorded.items() if table_id == devices.table_id]
    latest = max([devices.version, *recorded])
    for day, number in world.tally.written.items():
        # One that a table before had can't be told from one of this table, once that has come so far.
        is_ambiguous = (devices.replaced or devices.was_put_back) and told.get(day, -1) <= latest
        if world.tally.told[day] != number and not is_ambiguous:
            yield Broken("not told", f"Dagster does not know of the last time that {day} was written")


def _lost(world: Deployment, day: str) -> Iterator[Broken]:
    """What is wrong with the counts of a closed day."""
    devices = world.devices
    recorded = world.counts.recorded.get((devices.table_id, day))
    kind = "late data lost" if day in world.counts.rows else "never processed"
    wanted, found = devices.recount(day), world.counts.rows.get(day, Rows())
    if wanted != found:
        yield Broken(kind, f"{day} lacks {dict(wanted - found)} and has {dict(found - wanted)} too many ({recorded})")
    counted = recorded and _last_counted(devices, day, recorded)
    since = [v for v, days in enumerate(devices.changed) if day in days and counted is not None and v > counted]
    if (since and not devices.was_put_back) or (recorded is None and devices.of_day(day)):
        yield Broken(kind, f"{day} was changed by versions {since} since what it reflects, {recorded}")


def _last_counted(devices: Devices, day: str, recorded: InputVersion) -> int:
    """The latest version at which the day had exactly the files that were counted."""
    versions = [
        v for v in range(len(devices.versions)) if snapshot_of(devices, v).fingerprint(day) == recorded.fingerprint
    ]
    return max([recorded.version, *versions])


def _too_many_runs(world: Deployment) -> Iterator[Broken]:
    """The greatest number of runs that a day may have. For each part of this bound, some schedule reaches it.

    The condition requests at most:
    - one run for each time that the day was reported (after its cursor is lost, the commit sensor reports every day);
    - one more if the day was reported while the first tick that saw the day was under way;
    - one more for each loss of its own cursor.

    The reconciliation requests at most:
    - one run for each change, and for each table that took the place of another;
    - one more for each run that was killed, canceled or failed;
    - one more for each tick during which a run wrote the counts, and for each loss of its own cursor;
    - one for each compaction, if the log does not say whether rows changed (commits were removed or are missing, or a
      commit adds a file again). Writing out deletion vectors is a compaction.

    A refused table and an outage cost the runs that fail or die because of them. A clock that jumps costs none. Runs by
    hand, and retries of runs that died, are not included.
    """
    tally, devices = world.tally, world.devices
    for day in DAYS:
        by = Counter(run.by for run in world.launched if day in run.days and not run.retry)
        if by[AUTOMATION] > tally.reported[day] + 1 + tally.cursors_lost[AUTOMATION]:
            yield Broken("too many runs", f"{day}: {by[AUTOMATION]} by the condition")
        unknown = devices.compactions[day] if devices.log_is_uncertain else 0
        changes = devices.changes[day] + devices.replaced + unknown
        lost = tally.cursors_lost[RECONCILIATION]
        if by[RECONCILIATION] > changes + tally.disturbed[day] + tally.stale_observations + lost:
            yield Broken("too many runs", f"{day}: {by[RECONCILIATION]} by the reconciliation")


def _next(day: str) -> str:
    return (datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat()


# The search


def search(
    system: System,
    instance: dg.DagsterInstance,
    kinds: Kinds,
    seeds: Iterable[int],
    wanted: Collection[str] = (),
    rare: Sequence[Kinds] = (),
    small: int = 0,
) -> Played | None:
    """The first of these schedules that breaks the system, made as small as it gets; None if it survives all.

    wanted: the kinds of what may break; all by default.
    small: a schedule of so few actions is small enough.
    """
    for seed in seeds:
        played = play_at_random(system, instance, kinds, seed, rare)
        broken = {broken.kind for broken in played.broken} & set(wanted or {broken.kind for broken in played.broken})
        if broken:
            return _smallest(played, lambda schedule: play(system, instance, schedule), min(broken), small)
    return None


def _smallest(played: Played, play_again: Callable[[list[Action]], Played], kind: str, small: int) -> Played:
    """A part of the schedule that breaks in the same way, and is small, or no action can be removed from it."""
    size = len(played.schedule) // 2
    while size:
        at, before = 0, len(played.schedule)
        while at < len(played.schedule):
            if len(played.schedule) <= small:
                return played
            smaller = play_again(played.schedule[:at] + played.schedule[at + size :])
            if any(broken.kind == kind for broken in smaller.broken):
                played = smaller
            else:
                at += size
        # Repeat with single actions until nothing changes.
        size = size // 2 if size > 1 else int(len(played.schedule) < before)
    return played
