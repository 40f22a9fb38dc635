"""Runs uv with pip's settings: `uv_with_pip_settings.py UV ARGUMENT ...`. This file uses only the standard library.

Whoever needs an index, a proxy or a certificate of their own has told pip, in its files or in PIP_*; uv reads neither.
What is set for uv itself stays. Ends with status 3, and uv is not started, if pip has a setting that uv can't follow.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping

UNSUPPORTED = 3
# The cache for users who want none. The caller removes it. Without a cache, uv could not build pyspark in advance.
OWN_CACHE = os.path.join(sys.prefix, "uv-cache")

# By pip's setting: uv's variables, and the separator between several values (empty if there can be only one).
_COUNTERPARTS: dict[str, tuple[tuple[str, ...], str]] = {
    "index-url": (("UV_DEFAULT_INDEX",), ""),
    "extra-index-url": (("UV_INDEX",), " "),
    "find-links": (("UV_FIND_LINKS",), ","),
    "trusted-host": (("UV_INSECURE_HOST",), " "),
    "constraint": (("UV_CONSTRAINT",), " "),
    "cert": (("SSL_CERT_FILE",), ""),
    "client-cert": (("SSL_CLIENT_CERT",), ""),
    "proxy": (("HTTP_PROXY", "HTTPS_PROXY"), ""),
    "timeout": (("UV_HTTP_TIMEOUT",), ""),
    "default-timeout": (("UV_HTTP_TIMEOUT",), ""),
    "retries": (("UV_HTTP_RETRIES",), ""),
}
_TRUE = ("1", "true", "yes", "on", "y", "t")
# These settings do not decide which packages are installed, nor from where.
_NO_MATTER = {
    *("disable-pip-version-check", "no-input", "no-color", "progress-bar", "quiet", "verbose", "log", "debug"),
    *(
        "cache-dir",
        "compile",
        "no-compile",
        "no-warn-script-location",
        "no-warn-conflicts",
        "no-python-version-warning",
    ),
    *("root-user-action", "require-virtualenv", "break-system-packages", "prefer-binary", "format", "exists-action"),
    *("use-feature", "use-deprecated", "upgrade", "upgrade-strategy", "config-file"),
}


class UnsupportedSetting(ValueError):
    """pip has a setting without a counterpart in uv. The message names it."""


def uv_settings(pip_config: str, environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Translate pip's settings for uv.

    Args:
        pip_config: the output of `pip config list`.
        environment: the environment variables. What they set for uv stays.

    Returns:
        The environment variables and the command line options for uv.

    Raises:
        UnsupportedSetting: pip has a setting without a counterpart in uv.
    """
    settings: dict[str, str] = {}
    options: list[str] = []
    for name, value in _pip_settings(pip_config).items():
        if name == "no-index":
            options += ["--no-index"] * (value.strip().lower() in _TRUE)
        elif name == "no-cache-dir":
            if value.strip().lower() in _TRUE:
                settings["UV_CACHE_DIR"] = OWN_CACHE
        elif name in _COUNTERPARTS:
            variables, separator = _COUNTERPARTS[name]
            values = separator.join(value.split()) if separator else value.strip()
            settings.update(dict.fromkeys(variables, values))
        elif name not in _NO_MATTER:
            raise UnsupportedSetting(f"uv can't follow pip's setting {name}={value}")
    if "UV_INDEX" in settings:
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip also takes a version from any index that has it
    # pip uses these variables, too.
    bundle = environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE")
    if bundle and "SSL_CERT_FILE" not in environment:
        settings.setdefault("SSL_CERT_FILE", bundle)
    old_names = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
    chosen = {
        name: value
        for name, value in settings.items()
        if not (name.startswith("UV_") and (name in environment or old_names.get(name, name) in environment))
    }
    return chosen, options


def _pip_settings(pip_config: str) -> dict[str, str]:
    """Return the settings for `pip install`: the environment overrides [install], which overrides [global]."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in pip_config.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if equals and section in sections:
            sections[section][name.lower().replace("_", "-")] = str(ast.literal_eval(value))
    return {**sections["global"], **sections["install"], **sections[":env:"]}


def main(command: list[str]) -> int:
    heard = {name: value for name, value in os.environ.items() if name not in ("PIP_QUIET", "PIP_VERBOSE")}
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], env=heard, capture_output=True, text=True)
    try:
        settings, options = uv_settings(listed.stdout if listed.returncode == 0 else "", os.environ)
    except UnsupportedSetting as error:
        print(error, file=sys.stderr)
        return UNSUPPORTED
    os.environ.update(settings)
    try:
        os.execv(command[0], command + options)
    except OSError as error:
        print(f"{command[0]} can't be run: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
