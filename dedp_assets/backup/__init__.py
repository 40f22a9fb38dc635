"""Backups of a system while it runs, and their restore into an empty home: `dedp backup` and `dedp restore`.

What says that work was done is copied first, and the input of that work last: the database (Dagster's events and
cursors, and the tables), the Delta tables that others are made from, our copies of landed files, the landed files.
So whatever is recorded as done is in the backup. Data may be newer than the records of it; that is harmless, because
each output records which input it reflects, and loads are idempotent. See docs/backup.md.
"""
