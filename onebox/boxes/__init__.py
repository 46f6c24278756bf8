"""Boxes: offers, create, wait, power and delete."""
