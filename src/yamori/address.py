"""Guest virtual and guest physical addresses as types of their own, so that a mix-up is a type error."""

from __future__ import annotations

from typing import NewType

GVA = NewType("GVA", int)
"""A guest virtual address: what the guest's kernel and programs use."""

GPA = NewType("GPA", int)
"""A guest physical address: what the guest's page tables lead to, and what its RAM regions are counted in."""
