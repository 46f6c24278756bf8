"""The provider `gcp`, against a strict server of ours for Compute Engine."""
