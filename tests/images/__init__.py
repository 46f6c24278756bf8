"""Building, saving, listing and pruning images."""
