"""Loads delimited files into tables: every line becomes a row, or is set aside with a reason and counted.

A `Format` describes the files. The names of tables and of key columns are parameters as well. Nothing here knows a
pipeline or reads a setting.
"""
