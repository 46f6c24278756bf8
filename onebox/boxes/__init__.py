"""These modules find offers, and create, prepare, start, stop and delete boxes."""
