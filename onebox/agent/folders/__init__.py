"""The folders of boxes and images on a machine that is no box, and their removal."""
