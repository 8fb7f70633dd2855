"""Phase: boots a machine from any provider nearby, serves the release on, and runs jobs."""
