"""Push files to a box, and fetch verified outputs from it."""
