"""State on this machine: the box record, its journal, and atomic files."""
