"""The loading team's side: takes each day's file into internal storage, whole."""
