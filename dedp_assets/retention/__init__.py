"""How long Dagster's records of runs, events and ticks are kept: the command `dedp purge`.

_dagster  all that it takes from what Dagster does not publish
purging   deletes old records from Dagster's storage, and keeps what conditions, cursors and reconciliation read
cli       the command
"""
