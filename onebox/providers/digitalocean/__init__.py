"""The parts of the provider `digitalocean`: one file for each thing it does."""
