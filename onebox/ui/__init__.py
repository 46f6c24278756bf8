"""Print everything that onebox shows, including live progress."""
