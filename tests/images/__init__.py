"""Making images, keeping and removing them."""
