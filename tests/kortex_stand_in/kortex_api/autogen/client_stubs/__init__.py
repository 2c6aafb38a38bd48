"""One client class per service of the arm."""
