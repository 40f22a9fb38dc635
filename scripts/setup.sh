#!/bin/sh
# `setup.sh` makes .venv with this project and with the packages of requirements.txt, which the product needs.
# `setup.sh dev` adds the packages of requirements-dev.txt, which tests and checks need; `setup.sh browser` and `setup.sh docs`
# add those of requirements-browser.txt and requirements-docs.txt. `make` calls this script.
# uv, which is pinned too, needs seconds where pip needs minutes. If uv is not available or fails, pip installs.
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

# Print the path of the pinned uv, or of a uv that the machine has, or nothing.
find_uv() {
    pip install --quiet --no-compile --no-deps "$(grep '^uv==' requirements-dev.txt)" >&2 || true
    for uv in "$PWD/.venv/bin/uv" "$(command -v uv)"; do
        if works "$uv"; then
            echo "$uv"
            return
        fi
    done
    echo "uv is not available (see above). pip installs instead, which takes some minutes." >&2
}

by_uv() {
    .venv/bin/python scripts/uv_with_pip_settings.py "$uv" pip install --quiet --python .venv/bin/python \
        --no-deps --build-constraint requirements.txt "$@"
}

# Every package is pinned, and nothing needs to be resolved: --no-deps saves pip a minute.
install() {
    if [ -n "$uv" ]; then
        by_uv "$@" && return
        uv=
        echo "uv can't install them (see above). pip installs instead, which takes some minutes."
    fi
    pip install --no-compile --no-deps "$@"
}

install_packages() {
    install -r "$1" || fail \
        "the pinned packages could not be installed." \
        "The first error above says which. Often it is the network or a proxy; then run the same command again."
}

# Python stores the compiled form of the modules that it imports. Do that here once, and not in every process that the demo
# starts at the same time. To compile all packages would take ten times as long.
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
# The options with which setuptools builds pyspark, the one package that comes as source.
export DIST_EXTRA_CONFIG="${DIST_EXTRA_CONFIG:-$PWD/scripts/build.cfg}"

if [ $# -gt 0 ]; then
    echo "[setup] the packages of requirements-$1.txt"
    uv=$(find_uv)
    install_packages "requirements-$1.txt"
    if [ "$1" = dev ]; then
        install --no-build-isolation --editable packages/dagster-scenario || fail \
            "the test harness could not be installed." "See the message above."
    fi
    touch ".venv/.installed-$1"
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
# Only pyspark comes as source, and it is half of the work: uv builds its wheel in the cache while it installs the others.
# Until then pyspark goes into a folder of its own, because two uv processes can't work in one environment.
grep '^pyspark==' requirements.txt >.venv/pyspark.txt
grep -v '^pyspark==' requirements.txt >.venv/others.txt
if [ -n "$uv" ]; then
    by_uv --target .venv/pyspark -r .venv/pyspark.txt >/dev/null 2>&1 &
    spark=$!
fi
install_packages .venv/others.txt

echo "[3/3] this project, and pyspark"
install --no-build-isolation --editable packages/dagster-warm-launcher --editable . || fail \
    "the project itself could not be installed." "See the message above."
compile_imports dagster._cli dagster._cli.api dagster._daemon.cli dagster_webserver.cli dagster_postgres deltalake \
    pandas matplotlib.pyplot dedp_assets.cli dedp_assets.demo \
    jobs.devices_loader jobs.devices_aggregator jobs.late_data_integrator jobs.client_uploads \
    jobs.promotions jobs.promotion_reports jobs.user_intake jobs.flight_search jobs.cookbook
[ -z "$spark" ] || wait "$spark" || true
spark=
install_packages .venv/pyspark.txt
compile_imports pyspark.sql.connect.session
touch .venv/.installed
