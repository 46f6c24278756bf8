"""The provider `local`: its boxes are processes on this machine."""
