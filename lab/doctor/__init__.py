"""What a machine needs to run the lab, whether it is there, and how to get it.

Standard library only, and importable by the system's own Python before any virtual environment exists.
`python3 -m lab.doctor setup` is what `make` calls first.
"""
