"""An audit that could not be made never looks like one that found nothing."""

from importlib import util
from pathlib import Path

_SPEC = util.spec_from_file_location("audit", Path(__file__).parents[2] / "scripts" / "audit.py")
assert _SPEC
assert _SPEC.loader
_MODULE = util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
verdict = _MODULE.verdict

SOUND = {"name": "a", "version": "1", "vulns": []}
UNKNOWN = {"name": "b", "skip_reason": "not found"}
FLAWED = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}


def test_a_known_vulnerability_fails_the_audit_and_is_named() -> None:
    result = verdict([SOUND, FLAWED, UNKNOWN])
    assert result.code == 1
    assert "c 2: PYSEC-1, mended in 3" in result.text


def test_packages_that_could_not_be_looked_up_are_named() -> None:
    assert verdict([SOUND, UNKNOWN]) == (0, "no known vulnerability in 1 packages; 1 could not be looked up: b")


def test_an_index_that_knows_no_package_has_skipped_the_audit() -> None:
    assert verdict([UNKNOWN, UNKNOWN]).text.startswith("skipped: ")
