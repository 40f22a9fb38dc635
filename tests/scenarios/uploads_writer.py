"""A process that uploads into many directories: it writes in place, renames, rewrites and deletes, until it is told.

`uploads_writer.py FOLDER CLIENTS SEED` prints a line of JSON for each version that it has completed:
{"client", "file", "sha256", "began", "ended", "paused"}. `ended` is null for those that lie there at the end. Times are
in s since the epoch. `paused` is the longest time, in s, for which the file was half and did not change. A line on its
standard input ends it.
"""

import hashlib
import json
import os
import random
import select
import sys
import time
from pathlib import Path

HEADER = "id,name,value\n"


def content(dice: random.Random) -> str:
    return HEADER + "".join(f"{dice.randrange(10**9)},item,{number}\n" for number in range(dice.randrange(1, 200)))


def write_in_place(path: Path, text: str, dice: random.Random) -> float:
    """Write a file in parts. Returns the longest time between two of them, in s: a busy machine may add to it."""
    longest, last = 0.0, time.monotonic()
    with path.open("w") as stream:
        for start in range(0, len(text), 200):
            stream.write(text[start : start + 200])
            stream.flush()
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            time.sleep(dice.choice((0, 0, 0.001, 0.02)))
    return longest


def write_and_rename(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".part")
    draft.write_text(text)
    os.replace(draft, path)


def main(folder: Path, clients: int, seed: int) -> None:
    dice = random.Random(seed)
    lying: dict[Path, dict[str, object]] = {}
    done: list[dict[str, object]] = []
    for number in range(clients):
        (folder / f"client{number:04}").mkdir(parents=True, exist_ok=True)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        path = folder / f"client{dice.randrange(clients):04}" / f"{dice.randrange(3)}.csv"
        before = lying.pop(path, None)
        if before is not None:
            done.append(before | {"ended": time.time()})
            if dice.random() < 0.2:
                path.unlink()
                continue
        text, paused = content(dice), 0.0
        if dice.random() < 0.5:
            write_and_rename(path, text)
        else:
            paused = write_in_place(path, text, dice)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        lying[path] = {
            "client": path.parent.name,
            "file": path.name,
            "sha256": sha256,
            "began": time.time(),
            "ended": None,
            "paused": paused,
        }
        time.sleep(0.002)
    for version in [*done, *lying.values()]:
        print(json.dumps(version))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
