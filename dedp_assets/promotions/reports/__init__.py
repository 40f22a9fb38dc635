"""What follows a delivery: differences against the one before, the dashboard, and the notification."""
