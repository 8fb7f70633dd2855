"""Side-by-side measurements: Phase against a named peer or floor, in the same run."""
