"""One kernel concept per file: rows out of guest memory."""
