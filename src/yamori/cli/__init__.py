"""The ``yamori`` command: one file per command."""
