"""The rules that providers keep: `contract` for all, the rest for one each."""
