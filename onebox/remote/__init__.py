"""The connection to a box: OpenSSH, the agent channel, keys and the agent bundle."""
