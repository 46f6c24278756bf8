"""What the agent on the box promises, tested on the bundle that goes there."""
