"""Make the eight tables as Parquet files, unless they are there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from tpch import TABLES, data_dir, read_scale


def main() -> None:
    """Write the tables beside their final place, then move them there at once."""
    scale = read_scale(__doc__)
    done = data_dir(scale)
    start = time.perf_counter()
    if not done.is_dir():
        part = done.with_name(done.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        # The generator was installed with this interpreter; PATH may not know it.
        generator = str(Path(sys.executable).with_name("tpchgen-cli"))
        options = ["-s", f"{scale:g}", "-o", str(part), "--quiet"]
        subprocess.run([generator, "parquet", *options], check=True)
        part.rename(done)

    size = sum((done / f"{table}.parquet").stat().st_size for table in TABLES)
    seconds = time.perf_counter() - start
    print(f"make_data {len(TABLES):>5} tables {seconds:>6.2f} s   {size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
