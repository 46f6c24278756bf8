"""
Serve the files of a folder as the objects of a bucket, until the end of the input.

For benchmarks, and to try things by hand:
`python -m tests.fakes.object_stores s3 data/`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fakes.object_stores.gcs import GCS
from tests.fakes.object_stores.s3 import S3
from tests.fakes.object_stores.web import File, Web


def main() -> None:
    """Serve; print what a client needs as lines for a shell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["s3", "gcs", "web"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bucket", default="b")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    files = {
        file.relative_to(given.folder).as_posix(): file
        for file in sorted(given.folder.rglob("*"))
        if file.is_file()
    }
    lines: dict[str, str] = {}
    store: S3 | GCS | Web
    if given.kind == "s3":
        store = s3 = S3()
        s3.create_bucket(given.bucket)
        for key, file in files.items():
            s3.put(given.bucket, key, file)
    elif given.kind == "gcs":
        store = gcs = GCS()
        gcs.create_bucket(given.bucket)
        for key, file in files.items():
            gcs.put(given.bucket, key, file)
        lines["TOKEN"] = gcs.token(seconds=86400)
    else:
        store = web = Web()
        for key, file in files.items():
            web.put(f"/{key}", File(file))
    with store.running(given.port) as address:
        if isinstance(store, S3):
            lines = store.environment()
        for name, value in {**lines, "ADDRESS": address}.items():
            print(f"export {name}={value}")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
