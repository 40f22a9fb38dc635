"""What the system says of itself: figures, logs, traces, and what is broken."""
