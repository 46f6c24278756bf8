"""
Object stores over HTTP on loopback: S3, Google Cloud Storage, and plain web servers.

The servers store the objects themselves. moto's S3 is not used: it accepts any
signature, and its routing fails for keys such as "a//b", "x/../y" and "a\\nb", which S3
accepts.
"""
