"""How long Dagster's records of runs, events and ticks are kept: the command `dedp purge`.

purging   deletes old records from Dagster's storage, and keeps what conditions, cursors and reconciliation read
cli       the command
"""
