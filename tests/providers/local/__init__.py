"""The rules of a local box's inside."""
