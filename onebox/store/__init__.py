"""State on this machine: paths, identity, and each box's record, journal and lock."""
