"""Files on the box: manifests, push, fetch."""
