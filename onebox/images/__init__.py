"""Build, save, list and remove images of a job's environment."""
