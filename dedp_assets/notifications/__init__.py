"""Messages to people: what a message is, and the places that it can be sent to."""
