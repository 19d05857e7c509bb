"""Probes packed for hypervisors: the same programs as C, with what is known of one kernel folded in."""
