"""
What every script here shares: the scale, the data, and how a query is answered.

A query leaves two files: `results/q05.csv`, its rows, and `results/q05.json`,
an *Answer* for the report.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

SCRATCH = Path(".cache")
RESULTS = Path("results")
TABLES = (
    "customer",
    "lineitem",
    "nation",
    "orders",
    "part",
    "partsupp",
    "region",
    "supplier",
)


@dataclass(frozen=True)
class Answer:
    """What the report says about one query."""

    name: str
    asks: str
    headline: str
    rows: int
    seconds: float
    scale: float


def read_scale(about: str | None) -> float:
    """
    Read the scale factor from --scale, or else from SCALE: 1 is about 1 GB.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--scale",
        type=_positive,
        default=os.environ.get("SCALE", "1"),
        help="TPC-H scale factor (default: $SCALE, or 1)",
    )
    scale: float = parser.parse_args().scale
    return scale


def data_dir(scale: float) -> Path:
    """Name the directory that holds the tables of this scale."""
    return SCRATCH / f"tpch-sf{scale:g}"


def answer(sql: str, *, asks: str, headline: str) -> None:
    """
    Run the query of the calling script and keep its rows.

    Args:
        sql: The query; the eight TPC-H tables are there by name.

        asks: The question in plain words.

        headline: The answer in plain words, a format string for the first row.
    """
    name = Path(sys.argv[0]).stem
    scale = read_scale(asks)
    data = data_dir(scale)
    if not data.is_dir():
        sys.exit(f"{name}: no data in {data}: run make_data.py --scale {scale:g} first")

    # What does not fit into memory goes where the data is, not into /tmp.
    with duckdb.connect(config={"temp_directory": str(SCRATCH / "spill")}) as db:
        for table in TABLES:
            db.read_parquet(str(data / f"{table}.parquet")).create_view(table)
        start = time.perf_counter()
        rows = db.execute(sql).fetchall()
        seconds = time.perf_counter() - start
        columns = [column[0] for column in db.description or ()]

    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])

    first = dict(zip(columns, rows[0])) if rows else {}
    found = headline.format(**first) if rows else "nothing"
    kept = Answer(name, asks, found, len(rows), round(seconds, 3), scale)
    text = json.dumps(asdict(kept), indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(f"{name:<9} {len(rows):>5} rows {seconds:>8.2f} s   {found}")


def _positive(text: str) -> float:
    scale = float(text)
    if not 0 < scale < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return scale
