"""Runs the services of a compose file as Docker would, with what the Linux kernel offers and without Docker.

Each service has its own root directory, processes, network address, user and privileges: namespaces, as a container
has. Its command, environment, volumes, secrets, networks, health check, restart policy and limits are those of the
file. Only what an image contains comes from this machine (images.py). Limits need control groups, of version 1 or 2.

Everything ends when this process ends, whatever the signal: the kernel ends the processes, and so the namespaces.
"""

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import psutil

from tests.deploy.images import Image
from tests.waiting import wait_until

_CLONE_NEWNET = 0x40000000
# A process with it ends when the thread that has started it ends.
_ENDS_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
# What the root directory of each container has of this machine, besides what its image contains.
_OF_THIS_MACHINE = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
_CONTROL_GROUPS, _GROUP = Path("/sys/fs/cgroup"), "dedp-deploy"
# A limit of a service, the kernel's controller of it, and its file in version 1 and in version 2 of control groups.
_LIMITS = (
    ("memory", "memory", "memory.limit_in_bytes", "memory.max"),
    ("pids", "pids", "pids.max", "pids.max"),
    ("cpus", "cpu", "cpu.cfs_quota_us", "cpu.max"),
)
_DEVICES = ("null", "zero", "full", "random", "urandom")

# Process 1: it hands signals on, and takes the end of processes that nobody else waits for, as with `init: true`. It
# stays root, and is no part of the container: the kernel ends it with us, and with it all other processes. The process
# of another user would not end with us.
_INIT = """
"$@" &
main=$!
trap 'kill -TERM $main' TERM
trap 'kill -INT $main' INT
while :; do
    wait $main && code=0 || code=$?
    kill -0 $main 2>/dev/null || exit $code
done
"""


def why_not() -> str | None:
    """Return why containers can't be made here, or None if they can."""
    if os.getuid() != 0:
        return "namespaces with several users need root"
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "sh", "-ec", _TRIAL],
        capture_output=True,
        text=True,
    )
    return None if tried.returncode == 0 else f"this machine allows no namespaces: {tried.stderr.strip()[:200]}"


_TRIAL = "mount -t tmpfs none /tmp; ip link add one type bridge; ip link add two type veth peer name three"


@dataclass
class Container:
    """A service and its process.

    Attributes:
        starts: how often it has been started.
        exit_code: how its process has ended, if it does not run.
    """

    name: str
    service: dict[str, Any]
    image: Image
    folder: Path
    network: int = 0
    addresses: dict[str, str] = field(default_factory=dict)
    starts: int = 0
    exit_code: int | None = None
    process: subprocess.Popen[bytes] | None = None
    _soon_ended: int = 0
    _started_at: float = 0
    _start_after: float = 0

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def limits(self) -> dict[str, Any]:
        """What it may take at most: `memory` in bytes, `pids`, `cpus`."""
        found: dict[str, Any] = self.service.get("deploy", {}).get("resources", {}).get("limits", {})
        return found

    @property
    def main_process(self) -> int | None:
        """The id of its process 1 as this machine counts, or None if it does not run."""
        if self.process is None or self.process.poll() is not None:
            return None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    @property
    def host_name(self) -> str:
        # As in Docker not that of the service, which may have characters that a host name can't have.
        return self.name.encode().hex()[:12]

    @property
    def user(self) -> tuple[int, int]:
        user, _, group = (self.service.get("user") or self.image.user).partition(":")
        return int(user), int(group or user)

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in (self.service.get("environment") or {}).items() if value is not None}
        return {**self.image.environment, "HOME": "/home/container", "HOSTNAME": self.host_name, **own}

    def processes(self) -> list[psutil.Process]:
        """All processes in it, without the process 1 of ours."""
        with suppress(psutil.NoSuchProcess):
            if main := self.main_process:
                found: list[psutil.Process] = psutil.Process(main).children(recursive=True)
                return found
        return []


class Engine:
    """The services of a compose file.

    Attributes:
        groups: what the kernel holds each service to.
        disk: the folder of all named volumes.

    Args:
        project: the file, resolved.
        images: what the images contain, by service.
        folder: where roots and logs go. Every user must be able to enter it.
        disk_megabytes: the size of the disk that all named volumes are on.
    """

    def __init__(self, project: dict[str, Any], images: dict[str, Image], folder: Path, disk_megabytes: int) -> None:
        self._project = project
        self._folder = folder
        self._disk_megabytes = disk_megabytes
        self._holders: list[subprocess.Popen[bytes]] = []
        self.groups: dict[str, ControlGroup] = {}
        self.containers = {
            name: Container(name, service, images[name], folder / name) for name, service in project["services"].items()
        }

    # -- as `docker compose up`, `kill`, `stop`, `exec`

    def make(self) -> None:
        """Make the networks and volumes."""
        self._engine = self._hold("--mount", "--propagation", "private")
        disk = self._folder / "disk"
        disk.mkdir()
        self._in_engine("mount", "-t", "tmpfs", "-o", f"size={self._disk_megabytes}m,mode=755", "disk", str(disk))
        # What is mounted there is seen through the engine's eyes, and by the containers.
        self.disk = Path(f"/proc/{self._engine}/root{disk}")
        ControlGroup.remove_those_of_the_dead()
        for container in self.containers.values():
            container.folder.mkdir()
            (container.folder / "root").mkdir()
            self.groups[container.name] = ControlGroup(container.name, container.limits)
        self._make_volumes()
        self._make_networks()

    def up(self, *names: str) -> None:
        """Start what may start by now. Call it again and again: it also restarts what has ended, as its policy says.

        Args:
            names: only these.
        """
        containers = [self.containers[name] for name in names or self.containers]
        for container in containers:
            if container.process is not None and container.exit_code is None:
                self._note_end(container)
        is_met = cache(self._is_met)
        for container in containers:
            if container.starts == 0:
                needs = container.service.get("depends_on", {})
                if all(is_met(name, need["condition"]) for name, need in needs.items()):
                    self._start(container)
            elif container.exit_code is not None and self._shall_restart(container):
                self._start(container)

    def down(self) -> None:
        """As `docker compose down --volumes`: everything ends, and what the volumes have is deleted."""
        for container in self.containers.values():
            self.kill(container.name)
            if container.process is not None:
                container.process.wait()
            container.process, container.exit_code, container.starts = None, None, 0
        for volume in self.disk.iterdir():
            shutil.rmtree(volume)
        self._make_volumes()

    def run(self, name: str, command: list[str], *mounts: dict[str, Any]) -> tuple[int, str]:
        """As `docker compose run --rm --no-deps`: the container of a service, for another command.

        Args:
            name: the service. It does not run at the moment: the command has its addresses.
            command: instead of that of the service.
            mounts: besides those of the service.

        Returns:
            How the command has ended, and what it has said.
        """
        service = self.containers[name].service
        once = {**service, "command": command, "volumes": [*service.get("volumes", ()), *mounts]}
        container = replace(self.containers[name], service=once, process=None, starts=0)
        before = len(self.said(name))
        self._start(container)
        assert container.process is not None
        return container.process.wait(), self.said(name)[before:]

    def kill(self, name: str) -> None:
        """End all processes of a service at once, as when a container is killed by the kernel or its machine fails."""
        if main := self.containers[name].main_process:
            os.kill(main, signal.SIGKILL)

    def has_started_again(self, name: str, starts: int) -> bool:
        """Whether a service has been started more often than so many times, and runs."""
        return self.containers[name].starts > starts and self.containers[name].main_process is not None

    def stop(self, name: str, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """Tell a service to end, as `docker compose restart` does first."""
        if main := self.containers[name].main_process:
            os.kill(psutil.Process(main).children()[0].pid, with_signal)

    def is_healthy(self, name: str) -> bool:
        """Run the health check of a service. A service without one is healthy when it runs."""
        container = self.containers[name]
        if container.main_process is None:
            return False
        check = container.service.get("healthcheck")
        if check is None:
            return True
        kind, *words = check["test"]
        command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        return self.run_in(name, command).returncode == 0

    def hang(self, name: str) -> None:
        """Stop all processes of a service, as if they waited for each other for ever."""
        for process in self.containers[name].processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def run_in(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """As `docker compose exec`."""
        container = self.containers[name]
        main = container.main_process
        if main is None:
            return subprocess.CompletedProcess(command, 1, "", f"{name} does not run")
        enter = ["nsenter", f"--target={main}", "--mount", "--net", "--pid", "--ipc", "--uts"]
        enter += ["--root"]
        limit = ["sh", "-ec", f'{self.groups[name].enter}\nexec "$@"', "sh"]
        return subprocess.run([*limit, *enter, *self._as_user(container), *command], capture_output=True, text=True)

    def close(self) -> None:
        """End everything."""
        for container in self.containers.values():
            self.kill(container.name)
        for process in [*(c.process for c in self.containers.values()), *self._holders]:
            if process is not None:
                process.kill()
                process.wait()
        for group in self.groups.values():
            group.remove()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """In the block, this thread connects as the machine of the containers would: it reaches each by its address."""
        with open("/proc/self/ns/net") as before, open(f"/proc/{self._engine}/ns/net") as inside:
            _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def reaches(self, name: str, host: str, port: int) -> bool:
        """Whether a service can connect to a port of another one."""
        return self.run_in(name, ["bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}"]).returncode == 0

    def address(self, name: str) -> str:
        """An address of a service."""
        return next(iter(self.containers[name].addresses.values()))

    def said(self, name: str) -> str:
        """What a service has said."""
        log = self.containers[name].log
        return log.read_text(errors="replace") if log.exists() else ""

    def tail(self, lines: int = 30) -> str:
        """The end of what each service has said."""
        said = []
        for container in self.containers.values():
            text = self.said(container.name)
            state = f"started {container.starts} times, exit code {container.exit_code}"
            said.append(f"== {container.name} ({state})\n" + "\n".join(text.splitlines()[-lines:]))
        return "\n".join(said)

    # -- restart policies and dependencies

    def _is_met(self, name: str, condition: str) -> bool:
        other = self.containers[name]
        if condition == "service_healthy":
            return self.is_healthy(name)
        if condition == "service_completed_successfully":
            return other.exit_code == 0
        return other.starts > 0

    def _note_end(self, container: Container) -> None:
        assert container.process is not None
        container.exit_code = container.process.poll()
        if container.exit_code is not None:
            ran = time.monotonic() - container._started_at
            container._soon_ended = 0 if ran > 10 else container._soon_ended + 1
            # Docker waits 0.1 s, 0.2 s, 0.4 s ... at most a minute.
            container._start_after = time.monotonic() + min(0.1 * 2**container._soon_ended, 60)

    def _shall_restart(self, container: Container) -> bool:
        policy, _, times = container.service.get("restart", "no").partition(":")
        wanted = policy in ("always", "unless-stopped") or (
            policy == "on-failure" and container.exit_code != 0 and (not times or container.starts <= int(times))
        )
        return wanted and time.monotonic() >= container._start_after

    # -- processes

    def _start(self, container: Container) -> None:
        enter = ["nsenter", f"--mount=/proc/{self._engine}/ns/mnt", f"--net=/proc/{container.network}/ns/net"]
        contain = ["unshare", "--mount", "--propagation", "private", "--pid", "--ipc", "--uts"]
        contain += ["--fork", "--kill-child=KILL"]
        with open(container.log, "ab") as log:
            container.process = subprocess.Popen(
                [*_ENDS_WITH_US, *enter, *contain, "bash", "-euc", self._script(container)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        container.starts += 1
        container.exit_code = None
        container._started_at = time.monotonic()

    def _script(self, container: Container) -> str:
        """What process 1 does before it becomes the command: its root directory."""
        service, image = container.service, container.image
        lines = [
            self.groups[container.name].enter,
            f"hostname {container.host_name}",
            f"mount -t tmpfs -o mode=755 root {container.folder}/root",
            f"cd {container.folder}/root",
            'bind() { [ -d "$1" ] && mkdir -p "./$2" || { mkdir -p "./${2%/*}"; [ -e "./$2" ] || : >"./$2"; }',
            '    mount --bind "$1" "./$2"; [ "$3" = rw ] || mount -o remount,bind,$3 "./$2"; }',
            f"for path in {' '.join(_OF_THIS_MACHINE)}; do",
            '    if [ -L "$path" ]; then cp -P "$path" .; elif [ -e "$path" ]; then bind "$path" "$path" ro; fi; done',
            "mkdir -p proc dev tmp old run var home/container; chmod 1777 tmp; ln -s ../run var/run",
            "mount -t proc proc proc; mount -t tmpfs -o mode=755 dev dev; ln -s /proc/self/fd dev/fd",
            f"for name in {' '.join(_DEVICES)}; do bind /dev/$name dev/$name rw; done",
            f"mkdir dev/shm; mount -t tmpfs -o mode=1777,size={service.get('shm_size', '64m')} shm dev/shm",
        ]
        # Before what comes from this machine, which may be below /tmp.
        for each in service.get("tmpfs", ()):
            where, _, options = each.partition(":")
            # What Docker adds.
            flags = ["mode=1777", "nosuid", "nodev", *([] if "exec" in options.split(",") else ["noexec"])]
            lines.append(f"mkdir -p .{where}; mount -t tmpfs -o {','.join([*flags, options])} tmp .{where}")
        for inside, path in image.contents.items():
            if not Path(inside).is_relative_to("/usr"):
                lines.append(f"bind {path} {inside} ro")
        for mount in sorted(service.get("volumes", ()), key=lambda mount: str(mount["target"])):
            source = self._folder / "disk" / mount["source"] if mount["type"] == "volume" else mount["source"]
            lines.append(f"bind {source} {mount['target']} {'ro' if mount.get('read_only') else 'rw'}")
        for secret in service.get("secrets", ()):
            file = self._project["secrets"][secret["source"]]["file"]
            lines.append(f"bind {file} {secret.get('target') or '/run/secrets/' + secret['source']} ro")
        names = {"hosts": self._hosts(container), "passwd": _passwd(container)}
        for name, text in names.items():
            (container.folder / name).write_text(text)
            lines.append(f"mount --bind {container.folder}/{name} etc/{name}")
        lines.append("pivot_root . old; umount -l old")
        if service.get("read_only"):
            lines.append("mount -o remount,ro /")
        command = [*self._as_user(container), *image.entrypoint, *(service.get("command") or [])]
        lines += [f"set -- {shlex.join(command)}", _INIT]
        return "\n".join(lines)

    def _as_user(self, container: Container) -> list[str]:
        user, group = container.user
        words = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        if "no-new-privileges:true" in container.service.get("security_opt", ()):
            words.append("--no-new-privs")
        if "ALL" in container.service.get("cap_drop", ()):
            words += ["--bounding-set=-all", "--inh-caps=-all"]
        folder = container.service.get("working_dir", container.image.folder)
        variables = [f"{name}={value}" for name, value in container.environment.items()]
        # A shell has its background processes ignore SIGINT, and Dagster's treat SIGTERM as they do that.
        signals = "--default-signal=INT,QUIT"
        return [*words, "env", "--ignore-environment", signals, f"--chdir={folder}", *variables]

    # -- volumes and networks

    def _make_volumes(self) -> None:
        for container in self.containers.values():
            for mount in container.service.get("volumes", ()):
                volume = self.disk / str(mount["source"])
                if mount["type"] == "volume" and not volume.exists():
                    volume.mkdir()
                    os.chown(volume, container.image.owner_of_volumes, container.image.owner_of_volumes)

    def _hold(self, *namespaces: str) -> int:
        """Start a process that keeps a network namespace, and others, until this process ends. Returns its id."""
        process = subprocess.Popen([*_ENDS_WITH_US, "unshare", "--net", *namespaces, "sleep", "infinity"])
        self._holders.append(process)
        while Path(f"/proc/{process.pid}/comm").read_text().strip() != "sleep":
            assert process.poll() is None, "the namespaces could not be made"
            time.sleep(0.005)
        return process.pid

    def _in_engine(self, *command: str, said: str = "") -> None:
        enter = ["nsenter", f"--target={self._engine}", "--mount", "--net"]
        done = subprocess.run([*enter, *command], input=said, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"

    def _make_networks(self) -> None:
        """A bridge for each network. The engine has the first address of each."""
        outside = ["link set lo up"]
        inside: dict[str, list[str]] = {}
        for container in self.containers.values():
            container.network = self._hold()
            inside[container.name] = ["link set lo up"]
        for number, network in enumerate(self._project["networks"]):
            outside += [f"link add b{number} type bridge", f"addr add 10.77.{number}.1/24 dev b{number}"]
            outside += [f"link set b{number} up"]
            members = [
                c for c in self.containers.values() if network in (c.service.get("networks") or {"default": None})
            ]
            for host, container in enumerate(members, 10):
                container.addresses[network] = f"10.77.{number}.{host}"
                outside += [
                    f"link add v{number}x{host} type veth peer name eth{number} netns {container.network}",
                    f"link set v{number}x{host} master b{number} up",
                ]
                inside[container.name] += [
                    f"addr add {container.addresses[network]}/24 dev eth{number}",
                    f"link set eth{number} up",
                ]
        self._in_engine("ip", "-batch", "-", said="\n".join(outside))
        for name, commands in inside.items():
            self._in_engine(
                *("nsenter", f"--net=/proc/{self.containers[name].network}/ns/net", "ip", "-batch", "-"),
                said="\n".join(commands),
            )

    def _hosts(self, container: Container) -> str:
        lines = ["127.0.0.1 localhost"]
        lines += [f"{address} {container.host_name}" for address in container.addresses.values()]
        for network in container.addresses:
            for other in self.containers.values():
                if network in other.addresses:
                    lines.append(f"{other.addresses[network]} {other.name}")
        return "\n".join(lines) + "\n"


class ControlGroup:
    """What the kernel holds the processes of a container to. Of a limit that this machine can't set, there is nothing.

    Attributes:
        folders: where the kernel keeps each limit: `memory`, `pids`, `cpus`.
    """

    def __init__(self, name: str, limits: dict[str, Any]) -> None:
        is_second_version = (_CONTROL_GROUPS / "cgroup.controllers").exists()
        self.folders: dict[str, Path] = {}
        for limit, controller, first, second in _LIMITS:
            folder = _CONTROL_GROUPS / ("" if is_second_version else controller) / f"{_GROUP}-{os.getpid()}-{name}"
            value = float(limits.get(limit) or 0) * (100_000 if limit == "cpus" else 1)
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
                if value:
                    (folder / (second if is_second_version else first)).write_text(f"{value:.0f}")
                self.folders[limit] = folder

    @property
    def enter(self) -> str:
        """What a shell does to be in it, with all that it starts."""
        return "\n".join(f"echo 0 >{folder}/cgroup.procs" for folder in sorted({*self.folders.values()}))

    @property
    def memory(self) -> int:
        """What its processes have of their own, in bytes. What they have read or written can be let go."""
        held = self._said("memory.stat")
        return held.get("rss", 0) + held.get("anon", 0)

    @property
    def killed(self) -> int:
        """How many of its processes the kernel has killed, because they would have had more than their limit."""
        return self._said("memory.events").get("oom_kill", 0) + self._said("memory.oom_control").get("oom_kill", 0)

    @staticmethod
    def remove_those_of_the_dead() -> None:
        """Nobody else does: the kernel ends the processes of a container when we end, and leaves its control groups."""
        for folder in [*_CONTROL_GROUPS.glob(f"{_GROUP}-*"), *_CONTROL_GROUPS.glob(f"*/{_GROUP}-*")]:
            if not psutil.pid_exists(int(folder.name.removeprefix(_GROUP).split("-")[1])):
                with suppress(OSError):
                    folder.rmdir()

    def remove(self) -> None:
        """Remove it, once its processes have ended."""
        for folder in {*self.folders.values()}:
            wait_until(partial(_has_no_process, folder), f"the end of the processes in {folder}")
            with suppress(OSError):
                folder.rmdir()

    def _said(self, file: str) -> dict[str, int]:
        if "memory" not in self.folders or not (self.folders["memory"] / file).exists():
            return {}
        lines = (self.folders["memory"] / file).read_text().splitlines()
        return {name: int(number) for name, number in (line.split() for line in lines)}


def _has_no_process(control_group: Path) -> bool:
    try:
        return not (control_group / "cgroup.procs").read_text()
    except FileNotFoundError:
        return True


def _passwd(container: Container) -> str:
    user, group = container.user
    return f"root:x:0:0:root:/:/bin/sh\ncontainer:x:{user}:{group}::/home/container:/bin/sh\n"


def _enter(network: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(network, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "the network can't be entered")
