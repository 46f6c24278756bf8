"""
A Hetzner Cloud project: servers, snapshots, firewalls, ssh keys and addresses.

It refuses the fields and values that the real API refuses.
"""
