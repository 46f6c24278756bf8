"""The provider `digitalocean`, against a strict server of our own."""
