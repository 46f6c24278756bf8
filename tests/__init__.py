"""The rules of onebox, one test each; the folders mirror the package."""
