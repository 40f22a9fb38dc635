"""The loading team's part: copies each day's file into internal storage."""
