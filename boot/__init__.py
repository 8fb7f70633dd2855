"""Build the images Phase boots; may use phase.release and the formats in phase.boot."""
