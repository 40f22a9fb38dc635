"""A scenario always comes back: from runs that wait for each other, that hang, that start threads and processes."""

import hashlib
import multiprocessing
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioError, runs, stuck

BEGIN = datetime(2024, 1, 1, tzinfo=timezone.utc)


def called() -> None:
    """What a fault can name."""


# Pools


def pooled(scenario: Scenario, slots: int, **settings: object) -> None:
    """`pooled`, which waits for a slot of the pool `db` after `up` has run."""

    @dg.asset
    def up() -> None: ...

    @dg.asset(pool="db", deps=[up], **settings)  # type: ignore[call-overload, untyped-decorator]
    def pooled() -> None: ...

    scenario.instance.event_log_storage.set_concurrency_slots("db", slots)
    scenario.load(dg.Definitions(assets=[up, pooled]))


def ended(scenario: Scenario) -> list[int]:
    """How many minutes after the beginning the runs ended."""
    runs = scenario.timeline.runs.values()
    return [round((run.ended - BEGIN).total_seconds() / 60) for run in runs if run.ended is not None]


def test_a_run_waits_until_a_slot_of_its_pool_is_free(scenario: Scenario) -> None:
    pooled(scenario, slots=1)
    scenario.takes("pooled", minutes=10)
    for _ in range(3):
        scenario.materialize("up", "pooled")
    scenario.advance(minutes=15)
    scenario.expect_runs().count(3)
    assert ended(scenario) == [10]
    assert "waits for a slot of the pool 'db'" in str(scenario.timeline)
    scenario.advance(minutes=30)
    assert ended(scenario) == [10, 20, 30]


def test_a_run_goes_on_when_its_pool_gets_more_slots(scenario: Scenario) -> None:
    pooled(scenario, slots=1)
    scenario.hold("pooled")
    for _ in range(2):
        scenario.materialize("up", "pooled")
    scenario.advance(minutes=5)
    assert str(scenario.timeline).count("held") == 1
    scenario.instance.event_log_storage.set_concurrency_slots("db", 2)
    scenario.advance(minutes=5)
    assert str(scenario.timeline).count("held") == 2
    scenario.release()
    assert ended(scenario) == [10, 10]


def test_a_step_that_waits_for_its_retry_gives_its_slot_to_another_run(scenario: Scenario) -> None:
    pooled(scenario, slots=1, retry_policy=dg.RetryPolicy(max_retries=1, delay=600))
    scenario.fail("pooled", times=1)
    scenario.takes("pooled", minutes=5)
    for _ in range(2):
        scenario.materialize("up", "pooled")
    scenario.advance(hours=1)
    assert sorted(ended(scenario)) == [5, 15]


# Retries


@pytest.mark.parametrize("delay", [66.4155301639689, 12.345678901234, 0.1 + 0.2, 99.99999999999])
def test_a_retry_is_on_time_whatever_its_delay(scenario: Scenario, delay: float) -> None:
    times = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1, delay=delay))
    def stubborn() -> None:
        times.append(datetime.now(timezone.utc))
        if len(times) == 1:
            raise ValueError("not yet")

    scenario.load(dg.Definitions(assets=[stubborn]))
    scenario.materialize("stubborn")
    scenario.advance(hours=6)
    assert len(times) == 2
    assert abs((times[1] - times[0]).total_seconds() - delay) < 0.01


# Threads and processes


def test_threads_of_a_run_sleep_in_simulated_time_and_come_to_faults(scenario: Scenario) -> None:
    times: dict[int, datetime] = {}

    def work(hours: int) -> None:
        time.sleep(hours * 3600)
        called()
        times[hours] = datetime.now(timezone.utc)

    @dg.asset
    def parallel() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, [3, 1, 2]))

    scenario.load(dg.Definitions(assets=[parallel]))
    scenario.materialize("parallel")
    scenario.advance(hours=2, minutes=30)
    assert sorted(times) == [1, 2]
    scenario.expect("parallel").running()
    scenario.advance(hours=1)
    assert [(hours, round((times[hours] - BEGIN).total_seconds() / 3600)) for hours in sorted(times)] == [
        (1, 1),
        (2, 2),
        (3, 3),
    ]
    scenario.expect("parallel").materialized(times=1)
    scenario.fail("parallel", before=f"{__name__}.called", error="in a thread")
    scenario.materialize("parallel")
    scenario.advance(hours=5)
    scenario.expect("parallel").failed(error="in a thread")


class Late(threading.Thread):
    """A thread that a busy machine starts late."""

    def _bootstrap(self) -> None:
        select.select([], [], [], 1.5)
        super()._bootstrap()  # type: ignore[misc]


def compute(seconds: float) -> None:
    """Compute outside of Python, in one call, for about so many real seconds."""
    began = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000)
    hashlib.pbkdf2_hmac("sha256", b"", b"", int(100_000 * seconds / (time.perf_counter() - began)))


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        pytest.param(Late, lambda: None, id="starts late"),
        pytest.param(
            threading.Thread,
            lambda: compute(1.5),
            id="computes",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a thread does"),
        ),
    ],
)
def test_simulated_time_waits_for_a_thread_that_does_not_wait(
    scenario: Scenario, kind: type[threading.Thread], work: Callable[[], None]
) -> None:
    times: list[datetime] = []

    def other() -> None:
        work()
        time.sleep(3600)
        times.append(datetime.now(timezone.utc))

    @dg.asset
    def parallel() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(time.sleep, 3 * 3600)
            thread = kind(target=other)
            thread.start()
            thread.join()

    scenario.load(dg.Definitions(assets=[parallel]))
    scenario.materialize("parallel")
    scenario.advance(hours=2)
    assert [round((at - BEGIN).total_seconds() / 3600) for at in times] == [1]
    scenario.advance(hours=1)
    scenario.expect("parallel").materialized(times=1)


def test_a_thread_that_is_held_holds_its_run(scenario: Scenario) -> None:
    @dg.asset
    def threaded() -> None:
        thread = threading.Thread(target=called)
        thread.start()
        thread.join()

    scenario.load(dg.Definitions(assets=[threaded]))
    scenario.hold("threaded", before=f"{__name__}.called")
    scenario.materialize("threaded")
    scenario.advance(hours=1)
    scenario.expect("threaded").running()
    scenario.release("threaded")
    scenario.expect("threaded").materialized(times=1)


def test_a_run_that_is_abandoned_takes_its_threads_with_it() -> None:
    before = set(threading.enumerate())

    @dg.asset
    def threaded() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(time.sleep, [3600, 7200]))

    with Scenario() as scenario:
        scenario.load(dg.Definitions(assets=[threaded]))
        scenario.materialize("threaded")
        scenario.advance(minutes=1)
    for thread in set(threading.enumerate()) - before:
        thread.join(300)
        assert not thread.is_alive(), thread


def nap(seconds: float) -> tuple[float, float]:
    began = time.monotonic()
    time.sleep(seconds)
    return time.time(), time.monotonic() - began


def test_processes_of_a_run_have_real_time_and_sleep_for_real(capfd: pytest.CaptureFixture[str]) -> None:
    seen = []

    @dg.asset
    def elsewhere() -> None:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            seen.extend(pool.map(nap, [0.1, 0.2]))

    real = time.time()
    with Scenario(start="2031-05-04 10:00") as later:
        later.load(dg.Definitions(assets=[elsewhere]))
        later.materialize("elsewhere")
        later.tick()
        later.expect("elsewhere").materialized(times=1)
    for now, slept in seen:
        assert real <= now <= time.time()
        assert slept >= 0.1
    assert capfd.readouterr().err == "", "the processes end without a word"


# Coroutines


def test_a_fault_after_a_coroutine_comes_when_it_has_run(scenario: Scenario) -> None:
    @dg.asset
    async def awaiting() -> None:
        await write()

    scenario.load(dg.Definitions(assets=[awaiting]))
    scenario.fail("awaiting", after=f"{__name__}.write", error="after it")
    WRITTEN.clear()
    scenario.materialize("awaiting")
    scenario.tick()
    scenario.expect("awaiting").failed(error="after it")
    assert WRITTEN == ["written"]


def test_a_fault_after_a_generator_comes_when_it_is_exhausted(scenario: Scenario) -> None:
    @dg.asset
    def reading() -> None:
        for line in lines():
            WRITTEN.append(line)

    scenario.load(dg.Definitions(assets=[reading]))
    scenario.fail("reading", after=f"{__name__}.lines", error="after it")
    WRITTEN.clear()
    scenario.materialize("reading")
    scenario.tick()
    scenario.expect("reading").failed(error="after it")
    assert WRITTEN == ["one", "two"]


WRITTEN: list[str] = []


async def write() -> None:
    WRITTEN.append("written")


def lines() -> Iterator[str]:
    yield "one"
    yield "two"


# Runs that hang


def test_a_run_that_hangs_is_reported_with_the_place(scenario: Scenario) -> None:
    let_go = threading.Event()

    @dg.asset
    def hanging() -> None:
        scenario.stuck_after = 0.5
        let_go.wait()

    scenario.load(dg.Definitions(assets=[hanging]))
    scenario.materialize("hanging")
    with pytest.raises(ScenarioError) as error:
        scenario.tick()
    message = str(error.value)
    assert message.startswith("run 1 (hanging) has not come back for 0.5 s of real time")
    assert "test_never_stuck.py" in message
    assert "let_go.wait()" in message
    let_go.set()


def test_a_run_that_hangs_does_not_hinder_the_end_of_the_scenario() -> None:
    let_go = threading.Event()

    @dg.asset
    def hanging() -> None:
        let_go.wait()

    @dg.asset
    def spinning() -> None:
        while True:
            pass

    for asset in (hanging, spinning):
        with Scenario() as scenario:
            scenario.load(dg.Definitions(assets=[asset]))
            scenario.stuck_after = 0.3
            scenario.materialize(asset.key)
            with pytest.raises(ScenarioError, match="has not come back"):
                scenario.tick()
    assert datetime.now(timezone.utc).year != 2024
    let_go.set()


def test_a_pass_that_ends_while_it_is_reported_as_stuck_ends_with_the_report_and_nothing_comes_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported, really_raise = threading.Event(), stuck._raise_in

    def raise_late(thread: threading.Thread) -> None:
        reported.set()
        time.sleep(0.3)
        really_raise(thread)

    monkeypatch.setattr(stuck, "_raise_in", raise_late)
    watch = stuck.DaemonWatch(lambda: 0.1)
    with stuck.signals_end(lambda frame: "nothing was under way"):
        with pytest.raises(stuck.Stuck), watch.watching():
            reported.wait()
        time.sleep(0.5)
    watch.close()


def test_a_sensor_that_hangs_is_reported_with_the_place(scenario: Scenario) -> None:
    let_go = threading.Event()

    @dg.asset
    def needed() -> None: ...

    @dg.sensor(target=needed, default_status=dg.DefaultSensorStatus.RUNNING)
    def hanging_sensor() -> None:
        scenario.stuck_after = 0.5
        let_go.wait()

    scenario.load(dg.Definitions(assets=[needed], sensors=[hanging_sensor]))
    with pytest.raises(ScenarioError) as error:
        scenario.tick()
    assert "a pass of the daemons has not come back for 0.5 s of real time" in str(error.value)
    assert "let_go.wait()" in str(error.value)


def test_what_takes_its_time_and_gets_on_is_not_stuck(scenario: Scenario) -> None:
    pause = threading.Event()

    @dg.asset
    def slow(context: dg.AssetExecutionContext) -> None:
        scenario.stuck_after = 2.5
        for number in range(12):
            pause.wait(0.25)
            context.log.info(f"{number}")
        scenario.stuck_after = None

    scenario.load(dg.Definitions(assets=[slow]))
    scenario.materialize("slow")
    scenario.tick()
    scenario.expect("slow").materialized(times=1)


def test_a_limit_that_is_none_is_no_limit(scenario: Scenario) -> None:
    with pytest.raises(ScenarioError, match="stuck_after=-1 is not a time"):
        scenario.stuck_after = -1
    scenario.stuck_after = None
    assert scenario.stuck_after is None


@pytest.mark.parametrize(("arguments", "expected"), [([], 7), (["--scenario-stuck-after=8"], 8)])
def test_the_limit_can_be_set_for_all_tests(tmp_path: Path, arguments: list[str], expected: float) -> None:
    (tmp_path / "test_it.py").write_text(f"def test_it(scenario):\n    assert scenario.stuck_after == {expected}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nscenario_stuck_after = 7\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "1 passed" in result.stdout


STUCK = """
    import threading, signal
    import dagster as dg
    from dagster_scenario import Scenario


    @dg.asset
    def stuck():
        print("here", flush=True)
        IN_RUN


    @dg.sensor(target=stuck, default_status=dg.DefaultSensorStatus.RUNNING)
    def looking():
        if IN_SENSOR:
            print("here", flush=True)
            while True: pass


    def test_stuck():
        with Scenario() as scenario:
            scenario.load(dg.Definitions(assets=[stuck], sensors=[looking]))
            scenario.materialize("stuck")
            scenario.tick()


    if __name__ == "__main__":
        test_stuck()
"""
PYTEST = ["-m", "pytest", "-s", "-p", "no:cacheprovider"]


@pytest.mark.parametrize(
    ("number", "in_run", "arguments"),
    [
        (signal.SIGINT, "while True: pass", []),
        (signal.SIGTERM, "threading.Event().wait()", []),
        (signal.SIGINT, "signal.sigtimedwait([], 1000)", PYTEST),
        (signal.SIGTERM, "while True: pass", PYTEST),
        (signal.SIGTERM, "", PYTEST),
    ],
    ids=["a loop", "a lock", "a system call", "under pytest", "a sensor"],
)
def test_a_signal_ends_a_stuck_scenario_and_says_where_it_was(
    tmp_path: Path, number: int, in_run: str, arguments: list[str]
) -> None:
    script = tmp_path / "test_script.py"
    script.write_text(
        textwrap.dedent(STUCK).replace("IN_RUN", in_run or "pass").replace("IN_SENSOR", str(not in_run)),
    )
    process = subprocess.Popen(
        [sys.executable, *arguments, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        # A shell ignores Ctrl-C for what it starts in the background, and what that starts does too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "here" in line:
            break
    process.send_signal(number)
    try:
        output = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    assert process.returncode != 0
    if in_run:
        assert f"ended by {signal.Signals(number).name} while run 1 (stuck) was at" in output
    else:
        assert "ended by a signal while the daemons were at" in output
    assert f"{script}:" in output


def test_a_signal_handler_of_the_project_stays(scenario: Scenario) -> None:
    scenario.close()
    seen = []
    interrupt = signal.getsignal(signal.SIGINT)
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("mine"))
    try:
        with Scenario():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["mine"]
    assert signal.getsignal(signal.SIGINT) is interrupt


def test_sleeping_seconds_that_are_not_a_number_fail_as_they_would(scenario: Scenario) -> None:
    @dg.asset
    def wrong() -> None:
        time.sleep(-1)

    scenario.load(dg.Definitions(assets=[wrong]))
    scenario.materialize("wrong")
    scenario.tick()
    scenario.expect("wrong").failed(error="sleep length must be non-negative")


def test_a_sleep_of_no_time_gives_the_turn_back_to_nobody(scenario: Scenario) -> None:
    @dg.asset
    def brief() -> None:
        time.sleep(0)

    scenario.load(dg.Definitions(assets=[brief]))
    scenario.materialize("brief")
    scenario.tick()
    scenario.expect("brief").materialized(times=1)
    assert scenario.now - BEGIN < timedelta(seconds=1)


def test_a_run_that_was_left_behind_says_nothing_when_it_ends_after_all(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "_CLEANUP", 0.1)
    lock = threading.Lock()
    threads = []

    @dg.asset
    def hanging(context: dg.AssetExecutionContext) -> None:
        threads.append(threading.current_thread())
        scenario.stuck_after = 0.3
        try:
            lock.acquire()
        finally:
            # Of a project's own, too.
            with suppress(Exception):
                context.log.info("after the end")

    with lock, Scenario() as scenario:
        scenario.load(dg.Definitions(assets=[hanging]))
        scenario.materialize("hanging")
        with pytest.raises(ScenarioError, match=r"has not come back"):
            scenario.tick()
    threads[0].join(300)
    assert not threads[0].is_alive()
    said = capfd.readouterr().err
    assert "it is left behind here" in said
    assert "Connection is closed" not in said
    assert "Exception" not in said
