"""What is deployed: one module per code location, each exposing one `defs`."""
