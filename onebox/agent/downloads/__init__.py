"""The download of objects from buckets and web servers, straight to the box's disk."""
