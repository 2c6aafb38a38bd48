"""The subcommands of ``recap``, one module each, imported only when its command is used."""
