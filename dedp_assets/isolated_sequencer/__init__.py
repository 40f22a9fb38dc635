"""The isolated sequencer: one team takes a devices file in, another loads it and keeps the totals.

`loader` and `aggregator` are deployed apart and never import each other. `contract` is all they share.
"""
