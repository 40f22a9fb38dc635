"""Flight searches: files of events that Spark appends to a Delta table, exactly once, and two aggregations of them."""
