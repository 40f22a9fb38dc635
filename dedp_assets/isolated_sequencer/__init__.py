"""The isolated sequencer: one team copies a devices file into internal storage, another team loads it and keeps totals.

`loader` and `aggregator` are deployed separately and never import each other. They share only `contract`.
"""
