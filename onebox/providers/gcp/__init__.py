"""The provider `gcp`: boxes on Compute Engine, one concern a module."""
