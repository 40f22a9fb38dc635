"""Delimited files into tables: every line is a row, or is set aside with its reason and counted.

What a file looks like is a `Format`. The name of a table and the columns of its key are data as well. Nothing here
knows a pipeline or reads a setting.
"""
