"""One module of messages per service of the arm."""
