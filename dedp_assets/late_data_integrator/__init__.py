"""The concurrent late-data integrator: a Delta table that others write, processed by Spark partition by partition."""
