"""What all cloud providers share."""
