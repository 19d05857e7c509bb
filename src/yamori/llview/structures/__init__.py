"""Helpers for the data structures of the kernel, one kind a file, in LLView."""
