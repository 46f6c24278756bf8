"""What is left when things are killed, cut, filled up and done at once."""
