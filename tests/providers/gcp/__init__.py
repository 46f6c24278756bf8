"""The provider `gcp`, against the fake project `tests/fakes/gcp`."""
