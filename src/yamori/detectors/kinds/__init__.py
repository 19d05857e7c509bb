"""One kind of intrusion per file: see ``yamori.detectors.detector``."""
