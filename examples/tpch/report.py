"""Write results/report.md and results/report.svg, and check the known answer."""

from __future__ import annotations

import csv
import json
import sys
from decimal import Decimal

from picture import draw
from tpch import RESULTS, Answer

# Q6 is one number. At scale 1 the TPC-H specification prints it (to the cent);
# the generator makes the same rows every time, so the small scales are fixed too.
KNOWN_Q6 = {
    0.01: Decimal("1193053.2253"),
    0.1: Decimal("11803420.2534"),
    1.0: Decimal("123141078.2283"),
}


def main() -> int:
    """Report on the answers in results/; a wrong one is said and makes this fail."""
    answers = [
        Answer(**json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(RESULTS.glob("q[0-9][0-9].json"))
    ]
    scales = {answer.scale for answer in answers}
    if len(scales) != 1:
        print("report: the answers are not of one scale: run main.py", file=sys.stderr)
        return 1
    (scale,) = scales
    check, right = check_q6(scale)

    text = markdown(answers, scale, check)
    (RESULTS / "report.md").write_text(text, encoding="utf-8")
    picture = draw(answers, read_rows("q09"), scale)
    (RESULTS / "report.svg").write_text(picture, encoding="utf-8")

    print(f"report    {len(answers):>5} answers            {check}")
    if not right:
        print(f"report: wrong results: {check}", file=sys.stderr)
    return 0 if right else 1


def check_q6(scale: float) -> tuple[str, bool]:
    """Compare Q6 with the known number, where there is one for this scale."""
    found = Decimal(read_rows("q06")[0]["revenue"] or "0")
    known = KNOWN_Q6.get(scale)
    if known is None:
        return f"Q6 is {found:,} (no known answer at scale {scale:g})", True
    if found != known:
        return f"Q6 is {found:,} but must be {known:,} at scale {scale:g}", False
    return f"Q6 is {found:,}, as it must be at scale {scale:g}", True


def markdown(answers: list[Answer], scale: float, check: str) -> str:
    """Write the report as a Markdown table, one query a line."""
    lines = [
        f"# Queries over TPC-H-derived data, scale {scale:g}",
        "",
        f"{check}.",
        "",
        "![Profit by nation and year, and the time of each query](report.svg)",
        "",
        "| query | what it asks | rows | seconds | headline |",
        "|---|---|--:|--:|---|",
    ]
    lines += [
        f"| [{a.name}]({a.name}.csv) | {a.asks} | {a.rows} | {a.seconds:.2f} "
        f"| {a.headline} |"
        for a in answers
    ]
    total = sum(a.seconds for a in answers)
    lines += [f"| all | | {sum(a.rows for a in answers)} | {total:.2f} | |", ""]
    return "\n".join(lines)


def read_rows(name: str) -> list[dict[str, str]]:
    """Read the rows that a query left, as text by column."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    sys.exit(main())
