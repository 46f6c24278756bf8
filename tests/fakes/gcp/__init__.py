"""
A fake Google Cloud project over HTTP: Compute Engine and the price catalogue.

It refuses requests that do not match Google's discovery document, stale fingerprints,
unreadable filters, and values that the document allows but Compute Engine refuses.
"""
