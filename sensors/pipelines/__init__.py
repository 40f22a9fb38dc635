"""What each code location watches: a small module for each. The mechanisms are in the folder above."""
