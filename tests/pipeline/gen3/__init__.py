"""The design space of ``gen3_vla``."""
