"""The provider `aws`, against the fake account `tests/fakes/aws`."""
