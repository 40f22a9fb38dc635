"""Follows, reads and creates Delta tables, ours and those of others. Nothing here knows a pipeline."""
