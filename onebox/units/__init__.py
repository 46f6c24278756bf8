"""The units of `map`: which there are, how they end, and what is reported."""
