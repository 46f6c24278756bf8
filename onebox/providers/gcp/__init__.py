"""What the provider `gcp` is made of: one concern of Compute Engine a file."""
