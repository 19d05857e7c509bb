"""The devices that every guest test runs on; the others, and other kernels, are cells of the matrix."""

from __future__ import annotations

DEVICES = ("armv7", "armv7-lpae", "arm64", "x86-64")
