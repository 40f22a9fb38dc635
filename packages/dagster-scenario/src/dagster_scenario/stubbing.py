"""What stands for assets that can't be computed in a test, as verbs."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import dagster as dg

from dagster_scenario import timeline as timeline_
from dagster_scenario.errors import ScenarioError, unknown
from dagster_scenario.faults import InjectedFailure
from dagster_scenario.locations import Locations
from dagster_scenario.stubs import Stub


class Stubbing:
    """Stubs: an asset is materialized as it would be, and its computation does not run."""

    _locations: Locations
    _changed: Callable[[str, str], None]

    def stub(
        self,
        target: str | dg.AssetKey,
        *,
        value: Any = None,
        metadata: Mapping[str, Any] | None = None,
        data_version: str | None = None,
        fails: str | BaseException | None = None,
        checks: Mapping[str, bool] | None = None,
    ) -> None:
        """Let something stand for the computation of an asset or op, from its next run on.

        The step runs with its retries, pool and faults, and without its inputs, its resources and its IO manager.
        What a stub of the same target said before is forgotten.

        Args:
            target: an asset or op. A step that computes several assets is stubbed as a whole.
            value: what assets downstream load; or a function that makes it of the partition key, None without one.
            metadata: of each materialization.
            data_version: of each materialization; without it Dagster's own.
            fails: an error, or its text, that every computation raises.
            checks: whether checks of the asset pass, by name. The checks of the same step pass without it; a check
                that is a step of its own runs, unless it is named here.

        Raises:
            ScenarioError: there is no such asset, op or check.
        """
        name = target.to_user_string() if isinstance(target, dg.AssetKey) else target
        if name not in self._locations.assets():
            self._locations.op_definitions(name)
        known = self._locations.checks_of(name)
        for check in checks or {}:
            if check not in known:
                raise unknown("check", check, known, where=f" of {name}")
        error = InjectedFailure(fails) if isinstance(fails, str) else fails
        self._locations.stand_ins.stubs[name] = Stub(
            name, value, metadata or {}, data_version, error, checks or {}, all_checks=False
        )
        self._changed(timeline_.WORLD, f"{name} is stubbed{f', and fails: {error}' if error is not None else ''}")

    def stub_all(self, *, except_: Collection[str | dg.AssetKey] = ()) -> None:
        """Let stubs stand for the computations of all assets and of their checks, except these and what is stubbed.

        Raises:
            ScenarioError: there is no such asset.
        """
        if isinstance(except_, str):
            raise ScenarioError(f"except_={except_!r} is one text; give a list: except_=[{except_!r}]")
        kept = {self._locations.asset(asset).name for asset in except_}
        stubs = self._locations.stand_ins.stubs
        for name, asset in self._locations.assets().items():
            if asset.executable and name not in kept and name not in stubs:
                stubs[name] = Stub(name, all_checks=True)
        but = f", except {', '.join(sorted(kept))}" if kept else ""
        self._changed(timeline_.WORLD, f"all assets are stubbed{but}")
