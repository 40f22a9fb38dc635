"""Files that land: when a version of a file is complete, which day takes which file, and our copies of them."""
