"""Dagster's daemon, woken by what happens instead of by loops of 5 s (docs/reactions.md).

`python -m dedp_assets.doorbell` is a drop-in for `dagster-daemon run`, with the same options. Dagster's own daemons do
the work, with their ticks, cursors, run keys and retries. A bell only tells them when to look.

    woken_by      what wakes a sensor: metadata that the sensor has
    due           when a sensor is due: plain values only
    bell          what has rung, and the wait for it
    log           rings for events in Dagster's log: NOTIFY of PostgreSQL
    folders       the directories to watch, and whether their file system tells of changes
    folder_watch  rings for files: inotify
    sources       keeps what rings running
    daemons       Dagster's daemons, with the bell
    _dagster      all that is taken from Dagster's private modules
"""
