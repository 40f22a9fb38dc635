"""When things run: a module or a package for each kind of event. Each decides in a function of plain values."""
