"""The provider `digitalocean`, against the fake `tests/fakes/digitalocean`."""
