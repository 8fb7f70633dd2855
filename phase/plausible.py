"""The earliest plausible time of a clock: machines without a battery start in 1970."""

#: The beginning of 2026, when this was written; Unix seconds.
EARLIEST = 1_767_225_600.0
