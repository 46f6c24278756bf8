"""
Object stores over HTTP on loopback: S3, Google Cloud Storage, and plain web servers.

    store = S3()
    store.put("bucket", "a//b", b"data")
    store.fail(503, times=2, key="bucket/a*")
    store.before(lambda: store.put("bucket", "a//b", b"new"), skip=1, method="GET")
    with store.running() as address:
        ...
    assert [503, 503, 206] == [one.status for one in store.requests]

`server.ObjectServer` has the faults and the log that all share. The servers store the
objects themselves. moto's S3 is not used: it accepts any signature, and its routing
fails for keys such as "a//b", "x/../y" and "a\\nb", which S3 accepts.

The real S3 and Cloud Storage do more. What they do and a fake here does not is refused
with the status 501, not ignored.
"""
