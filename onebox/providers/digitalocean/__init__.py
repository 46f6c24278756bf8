"""The provider `digitalocean`: boxes that are droplets, one concern a module."""
