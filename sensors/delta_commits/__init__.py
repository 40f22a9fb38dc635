"""Commits to a Delta table that is partitioned by day: which days changed, and in which version of the table.

Somebody else writes the table. A tick reads the commits after its cursor. It reports each day that changed as a
materialization whose data version is the version of the table. It requests no runs: what a change leads to is decided
elsewhere.

Sometimes the log does not say what changed: old commits were removed, or the table was created again. Then the tick
compares the files that the table has now with the files that it had before. It may report a change twice, but it misses
none. It also compares once a minute in any case, because a log can have a gap that it does not show, and because a
commit can be overwritten after it was read.

    cursor      what a tick stores for the next one
    observing   reads the table: the commits after the cursor, and a snapshot if one is needed
    planning    which days to report, from what was observed; plain values only
    events      the materialization that reports a day
    sensor      the sensor that puts these together
"""
