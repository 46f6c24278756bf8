"""The providers: `contract.py` for all of them, a folder for each."""
