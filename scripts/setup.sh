#!/bin/sh
# `setup.sh` makes .venv with what the product needs, of requirements.txt, and with this project in it.
# `setup.sh dev` adds what its tests and checks need, of requirements-dev.txt. Called by `make`.
# uv, pinned like the others, installs in seconds what takes pip minutes; where it can't be had or fails, pip does it.
# PYTHON=... chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf '\nsetup failed: %s\n%s\n' "$1" "$2" >&2
    exit 1
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

works() {
    "$1" --version >/dev/null 2>&1
}

pip() {
    .venv/bin/python -m pip --disable-pip-version-check "$@"
}

# The pinned uv, or one that the machine has, or none.
find_uv() {
    pip install --quiet --no-compile --no-deps "$(grep '^uv==' requirements-dev.txt)" >&2 || true
    for uv in "$PWD/.venv/bin/uv" "$(command -v uv)"; do
        if works "$uv"; then
            echo "$uv"
            return
        fi
    done
    echo "uv can't be had (see above), so pip installs, which takes some minutes." >&2
}

by_uv() {
    .venv/bin/python scripts/uv_with_pip_settings.py "$uv" pip install --quiet --python .venv/bin/python \
        --no-deps --build-constraint requirements.txt "$@"
}

# Every package is pinned, so nothing is left to resolve: --no-deps saves pip a minute of looking.
install() {
    if [ -n "$uv" ]; then
        by_uv "$@" && return
        uv=
        echo "uv can't install them (see above), so pip does, which takes some minutes."
    fi
    pip install --no-compile --no-deps "$@"
}

install_packages() {
    install -r "$1" || fail \
        "the pinned packages could not be installed." \
        "The first error above says which. Often it is the network or a proxy; then run the same command again."
}

# Python keeps compiled what it imports. Here it is done once, and not in every process that the demo starts at the same
# time; all of the packages would take ten times as long.
compile_imports() {
    .venv/bin/python -c 'import sys, importlib; [importlib.import_module(name) for name in sys.argv[1:]]' "$@" || true
}

clean_up() {
    [ -z "$spark" ] || kill "$spark" 2>/dev/null || true
    rm -rf .venv/pyspark .venv/pyspark.txt .venv/others.txt .venv/uv-cache
}

spark=
trap clean_up EXIT
trap 'exit 130' INT TERM
# How setuptools packs the one package that comes as source.
export DIST_EXTRA_CONFIG="${DIST_EXTRA_CONFIG:-$PWD/scripts/build.cfg}"

if [ "${1:-}" = dev ]; then
    echo "[setup] what tests and checks need, of requirements-dev.txt"
    uv=$(find_uv)
    install_packages requirements-dev.txt
    install --no-build-isolation --editable packages/dagster-scenario || fail \
        "the test harness could not be installed." "See the message above."
    touch .venv/.installed-dev
    exit
fi

python=$(find_python) || fail \
    "no Python 3.10 or later found (tried: ${PYTHON:-python3, python3.14 ... python3.10, python})." \
    "Install one, or name it: make setup PYTHON=/path/to/python3"
echo "[1/3] .venv with $("$python" --version) ($python)"
"$python" -m venv .venv || { works uv && uv venv --quiet --allow-existing --python "$python" .venv; } || fail \
    "$python could not create a virtual environment." \
    "On Debian and Ubuntu its module comes separately: apt-get install python3-venv"

uv=$(find_uv)
echo "[2/3] $(grep -c '==' requirements.txt) pinned packages, with uv less than a minute the first time"
# pyspark alone comes as source, and is half of the work: uv makes a wheel of it in its cache while it installs the
# others. Installed for the time being in a folder of its own, for two uv don't work in one environment.
grep '^pyspark==' requirements.txt >.venv/pyspark.txt
grep -v '^pyspark==' requirements.txt >.venv/others.txt
if [ -n "$uv" ]; then
    by_uv --target .venv/pyspark -r .venv/pyspark.txt >/dev/null 2>&1 &
    spark=$!
fi
install_packages .venv/others.txt

echo "[3/3] this project, and pyspark"
install --no-build-isolation --editable . || fail \
    "the project itself could not be installed." "See the message above."
compile_imports dagster._cli dagster._cli.api dagster._daemon.cli dagster_webserver.cli dagster_postgres deltalake \
    pandas matplotlib.pyplot dedp_assets.cli dedp_assets.demo \
    jobs.devices_loader jobs.devices_aggregator jobs.late_data_integrator
[ -z "$spark" ] || wait "$spark" || true
spark=
install_packages .venv/pyspark.txt
compile_imports pyspark.sql.connect.session
touch .venv/.installed
