"""The agent on the box, tested as the bundle that is sent there."""
