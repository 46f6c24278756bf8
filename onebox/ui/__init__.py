"""Everything onebox prints: the screen, live progress, and command hints."""
