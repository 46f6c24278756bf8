"""The provider `hetzner`, against the fake `tests/fakes/hetzner`."""
