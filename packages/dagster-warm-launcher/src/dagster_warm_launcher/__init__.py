"""A run launcher whose runs are forks of a process that has imported the code location already."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster_warm_launcher.launcher import WarmRunLauncher

__all__ = ["WarmRunLauncher"]


def __getattr__(name: str) -> Any:
    # A template watches what Dagster's import does, so that it must not happen before.
    if name == "WarmRunLauncher":
        from dagster_warm_launcher.launcher import WarmRunLauncher

        return WarmRunLauncher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
