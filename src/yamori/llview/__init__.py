"""LLView: probes and page-table walkers in a typed subset of Python, address translation put before every load."""
