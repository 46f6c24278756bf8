"""The life of a box: offers, creation, readiness, power and removal."""
