"""The runs of all code locations, in the terminal."""
