"""Fakes of what onebox talks to: clouds' APIs, and Linux machines. See README.md."""
