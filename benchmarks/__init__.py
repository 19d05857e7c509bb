"""Measurements on real devices, each in a process of its own; `make bench` prints them."""
