"""What is deployed: one module for each code location, with one `defs`."""
