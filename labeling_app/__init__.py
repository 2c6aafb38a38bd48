"""The web app in which people label episodes."""
