"""
A fake DigitalOcean account over HTTP: droplets, firewalls, tags, images, ssh keys.

It refuses unknown fields and query parameters, tokens without the scope of the call,
actions on a busy droplet, and sizes or images that a region lacks.
"""
