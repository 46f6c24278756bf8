"""Moves bytes between here and the box, and starts things on it."""
