"""What the clouds' providers share."""
