#!/bin/sh
# Creates .venv from requirements.txt and installs this project into it. Called by `make setup`.
# Uses uv when it is there, python's own venv and pip otherwise. PYTHON=... chooses the interpreter.
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

python=$(find_python) || fail \
    "no Python 3.10 or later found (tried: ${PYTHON:-python3, python3.14 ... python3.10, python})." \
    "Install one, or name it: make setup PYTHON=/path/to/python3"
echo "[1/3] .venv with $("$python" --version) ($python)"
if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then
    uv venv --quiet --allow-existing --python "$python" .venv || fail "uv could not create .venv." "See its message above."
    install="uv pip install --python .venv/bin/python"
else
    "$python" -m venv .venv || fail \
        "$python could not create a virtual environment." \
        "On Debian and Ubuntu its module comes separately: apt-get install python3-venv"
    install=".venv/bin/python -m pip --disable-pip-version-check install --no-compile"
fi

# Every package is pinned, so nothing is left to resolve: --no-deps saves pip a minute of looking.
echo "[2/3] $(grep -c '==' requirements.txt) pinned packages, a minute or two the first time"
$install --no-deps -r requirements.txt || fail \
    "the packages in requirements.txt could not be installed." \
    "The first error above says which. Often it is the network or a proxy; then run the same command again."

echo "[3/3] this project"
$install --quiet --no-deps --no-build-isolation --editable . || fail \
    "the project itself could not be installed." "See the message above."
# On all cores here, which pip would do on one, and the first command would do before it answers.
.venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
touch .venv/.installed
