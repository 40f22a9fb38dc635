"""The concurrent late-data integrator: Spark counts a Delta table that others write, day by day."""
