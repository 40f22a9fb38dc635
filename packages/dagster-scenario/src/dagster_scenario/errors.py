"""What the harness raises, and how it finds the name that was meant."""

import difflib
from collections.abc import Iterable


class ScenarioError(Exception):
    """The scenario itself can't be played: what was asked for, what there is, and what to do."""


class ScenarioWarning(UserWarning):
    """The scenario is played, and may not show what a deployment would."""


def unknown(kind: str, name: str, known: Iterable[str], where: str = " in the loaded code locations") -> ScenarioError:
    """An error for a name that is not there, with the nearest ones that are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or [n for n in names if name in n or n in name][:3]
    if near:
        there = f"Did you mean {' or '.join(repr(n) for n in near)}?"
    elif names:
        there = f"There are: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}."
    else:
        there = "There are none."
    return ScenarioError(f"no {kind} {name!r}{where}. {there}")
