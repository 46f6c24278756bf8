"""The mechanisms that all clouds share."""
