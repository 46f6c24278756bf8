"""Faults of all kinds are injected, and what is left afterwards is checked."""
