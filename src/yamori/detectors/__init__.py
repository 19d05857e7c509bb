"""One kind of trouble per file: rows to verdicts."""
