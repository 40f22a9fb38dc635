"""Delta tables, whoever writes them: followed by their logs, read, made. Nothing here knows a pipeline."""
