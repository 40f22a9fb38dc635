"""When things run: one module per kind of event. Each decides in a pure function and acts in a thin Dagster object."""
