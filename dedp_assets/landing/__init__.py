"""Files that land: what a version of a file is, when it is complete, and our own copies with what they reflect."""
