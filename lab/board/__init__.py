"""Boards: machines that are a serial line and a power switch, and nothing else to the lab."""
