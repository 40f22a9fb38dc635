"""Files that land in a folder by day: which days have something new to copy.

There are two kinds of landed files. A dated file, `2024-01-03/dataset.csv`, belongs to its day: every version of it is
for that day. The undated file, `dataset.csv`, belongs to no day: each day that is over and has no copy yet takes it
once. A later version of it is for later days. `dedp_assets.landing.versions` says what a version is and when it is
complete; `dedp_assets.landing.wanted` says which day wants which file.

A tick requests what is new since the tick before. Once a minute it also compares what each day's copy reflects with the
files in the folder. So the right copies come about even if a run failed, a daemon was away, or a cursor was lost.
Waiting for a file takes up no run: each tick looks, decides and ends.

    cursor      what a tick stores for the next one
    planning    which runs to request, from the files, the copies and the cursor; plain values only
    sensor      the sensor that reads them, and makes the requests
"""
