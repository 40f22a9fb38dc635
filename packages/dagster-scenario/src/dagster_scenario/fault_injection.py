"""What a scenario can break, slow down or hold, as verbs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dagster_scenario import timeline as timeline_
from dagster_scenario.daemons import Daemons
from dagster_scenario.errors import ScenarioError, unknown
from dagster_scenario.execution import Execution
from dagster_scenario.faults import END, FAIL, HOLD, KILL, START, TAKE, Fault, InjectedFailure
from dagster_scenario.locations import Locations
from dagster_scenario.runs import delta
from dagster_scenario.tick_faults import TickFaults
from dagster_scenario.timeline import Timeline


class FaultInjection:
    """Faults in runs and in daemons.

    A fault in a run lies at a point of an asset or op: its start, its end (`at='end'`: all is computed, nothing is
    recorded), or a call of a function during its step (`before='package.module.function'`, `after=...`), its IO
    managers' and resources' functions included. `partition` limits it to the runs that are to do this partition.
    """

    timeline: Timeline
    _execution: Execution
    _tick_faults: TickFaults
    _locations: Locations
    _twice: set[str]
    _changed: Callable[[str, str], None]
    _check_target: Callable[[str, str | None], None]
    _loaded_daemons: Callable[[], Daemons]
    _unsettle: Callable[[], None]

    def fail(
        self,
        target: str,
        times: int | None = 1,
        *,
        error: str | BaseException = "injected by the scenario",
        at: str = START,
        before: str | None = None,
        after: str | None = None,
        partition: str | None = None,
    ) -> None:
        """Let an asset, op, sensor or schedule raise this error the next `times` times, always for None.

        What a tick of a sensor or schedule has computed when it fails, at its end too, is lost with its cursor.
        """
        raised = error if isinstance(error, BaseException) else InjectedFailure(error)
        self._add(Fault(FAIL, target, _point(at, before, after), partition, times, error=raised))

    def kill(
        self,
        target: str,
        times: int | None = 1,
        *,
        at: str = START,
        before: str | None = None,
        after: str | None = None,
        partition: str | None = None,
    ) -> None:
        """Kill the next `times` runs that come to this point, by SIGKILL: no cleanup runs.

        Such a run executes in a process of its own; what it does to the memory of this one is lost, as it would be.
        Dagster learns of it only by its run monitoring, if the settings enable that.
        """
        self._add(Fault(KILL, target, _point(at, before, after), partition, times))

    def hold(
        self,
        target: str,
        times: int | None = None,
        *,
        at: str = START,
        before: str | None = None,
        after: str | None = None,
        partition: str | None = None,
    ) -> None:
        """Keep every run that comes to this point there, under way, until `release`."""
        self._add(Fault(HOLD, target, _point(at, before, after), partition, times))

    def release(self, target: str | None = None) -> None:
        """Let the runs go on that are held at this asset or op, all for None, and hold no more of them."""
        self._execution.release(target)
        self._unsettle()

    def takes(self, target: str, *, partition: str | None = None, **duration: float) -> None:
        """Let every computation of an asset or op, or every tick, take this long: `takes('orders', minutes=20)`.

        A tick keeps its daemon waiting, and so moves the clock.
        """
        self._add(Fault(TAKE, target, END, partition, None, duration=delta(**duration)))

    def stop_daemons(self, *names: str) -> None:
        """Take daemons down, all by default: 'schedules', 'sensors', 'automation', 'backfills', 'run queue', ..."""
        self._loaded_daemons().stop(names)
        self._changed(timeline_.DOWN, ", ".join(names) or "all daemons")

    def start_daemons(self, *names: str) -> None:
        """Bring daemons back up. Their next ticks are late by the time they were down."""
        self._loaded_daemons().start(names)
        self._changed(timeline_.UP, ", ".join(names) or "all daemons")

    @contextmanager
    def daemons_down(self, *names: str) -> Iterator[None]:
        """Daemons are down within the `with`."""
        self.stop_daemons(*names)
        try:
            yield
        finally:
            self.start_daemons(*names)

    def tick_twice(self, *instigators: str) -> None:
        """Let the next tick of these sensors and schedules happen twice from the same cursor, at the same time.

        It is what a daemon does that is killed after it has requested runs and before it has saved the cursor.
        """
        known = {name for _, name, _ in self.timeline.instigators.values()}
        if not instigators:
            raise ScenarioError(f"whose tick? There are: {', '.join(sorted(known)) or 'no sensors or schedules'}")
        for name in instigators:
            if name not in known:
                raise unknown("sensor or schedule", name, known)
        self._twice |= {origin for origin, (_, name, _) in self.timeline.instigators.items() if name in instigators}
        self._changed(timeline_.DAEMON, f"the next tick of {', '.join(instigators)} is to happen twice")

    def _add(self, fault: Fault) -> None:
        self._loaded_daemons()
        if fault.times is not None and fault.times < 1:
            raise ScenarioError(f"times={fault.times} is never; give 1 or more, or None for always")
        tickers = self._locations.tickers(fault.target)
        if tickers and fault.target not in self._locations.assets():
            _refuse_in_a_tick(fault)
            self._tick_faults.add(fault, tickers)
            return
        self._check_target(fault.target, fault.partition)
        self._execution.add(fault)


def _refuse_in_a_tick(fault: Fault) -> None:
    if fault.kind not in (FAIL, TAKE):
        raise ScenarioError(
            f"{fault.target} is a sensor or schedule, whose tick can fail or take its time, and nothing else; "
            "tick_twice(...) is what a daemon does that is killed in it"
        )
    if fault.partition is not None:
        raise ScenarioError(f"{fault.target} is a sensor or schedule, whose ticks have no partition; leave it out")


def _point(at: str, before: str | None, after: str | None) -> str:
    if sum([at != START, before is not None, after is not None]) > 1:
        raise ScenarioError("a fault lies at one point: at=, before= or after=, not two of them")
    if before is not None or after is not None:
        return f"before {before}" if before is not None else f"after {after}"
    if at not in (START, END):
        raise ScenarioError(
            f"at={at!r} is not a point of a computation; expected 'start' or 'end', or name a function that it "
            "calls: before='package.module.function'"
        )
    return at
