"""Keep state on this machine: ids, and the record, journal and lock of each box."""
