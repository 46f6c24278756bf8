"""The settings: which values are accepted, which are refused, and the messages."""
