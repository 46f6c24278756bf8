"""Draw the report as one SVG: no library, follows the reader's light or dark mode."""

from __future__ import annotations

from html import escape

from tpch import Answer

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
       font-variant-numeric: tabular-nums; }
.paper { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #59636e }
.mark { fill: #0a66c2 } .track { fill: #eaeef2 }
.title { font-size: 22px; font-weight: 650 } .head { font-size: 15px; font-weight: 600 }
.small { font-size: 11.5px } .end { text-anchor: end } .mid { text-anchor: middle }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117 } .ink { fill: #e6edf3 } .soft { fill: #9198a1 }
  .mark { fill: #58a6ff } .track { fill: #21262d }
}
"""
WIDTH, TOP, ROW = 960, 146, 19


def draw(answers: list[Answer], profits: list[dict[str, str]], scale: float) -> str:
    """Draw profit by nation and year on the left, the queries on the right."""
    nations = len({row["nation"] for row in profits})
    height = TOP + max(nations * ROW, len(answers) * 58) + 40
    total = sum(answer.seconds for answer in answers)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        _text(32, 44, f"TPC-H-derived data at scale {scale:g}", "ink title"),
        _text(32, 66, f"{len(answers)} queries in {total:.2f} s", "soft"),
        *_heatmap(profits),
        *_times(answers),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _heatmap(profits: list[dict[str, str]]) -> list[str]:
    """Colour each nation's years by profit, the nation that earned most on top."""
    cells = {(r["nation"], r["o_year"]): float(r["sum_profit"]) for r in profits}
    years = sorted({year for _, year in cells})
    totals: dict[str, float] = {}
    for (nation, _), profit in cells.items():
        totals[nation] = totals.get(nation, 0.0) + profit
    low, high = min(cells.values(), default=0.0), max(cells.values(), default=0.0)

    left, cell = 148, 46
    parts = [
        _text(32, TOP - 34, "Profit on green parts", "ink head"),
        # The orders of TPC-H end there, so the last column is no collapse.
        _text(left + 7 * cell + 62, TOP - 34, "1998: to August", "soft small end"),
    ]
    for column, year in enumerate(years):
        x = left + column * cell + cell / 2
        parts.append(_text(x, TOP - 8, year, "soft small mid"))
    parts.append(_text(left + 7 * cell + 62, TOP - 8, "all years", "soft small end"))
    for line, nation in enumerate(sorted(totals, key=lambda n: -totals[n])):
        y = TOP + line * ROW
        parts.append(_text(left - 10, y + 14, nation.title(), "ink end"))
        for column, year in enumerate(years):
            if (nation, year) not in cells:
                continue
            profit = cells[nation, year]
            strength = 0.1 + 0.9 * (profit - low) / ((high - low) or 1)
            parts.append(
                f'<rect class="mark" x="{left + column * cell}" y="{y}" '
                f'width="{cell - 2}" height="{ROW - 2}" rx="2" '
                f'fill-opacity="{strength:.2f}">'
                f"<title>{nation.title()} {year}: {profit:,.0f}</title></rect>"
            )
        total = _short(totals[nation])
        parts.append(_text(left + 7 * cell + 62, y + 14, total, "ink end"))
    return parts


def _times(answers: list[Answer]) -> list[str]:
    """Give each query its question, a bar as long as it took, and its answer."""
    left, longest = 590, 270
    slowest = max(answer.seconds for answer in answers) or 1
    parts = [_text(left, TOP - 34, "What was asked, and how long it took", "ink head")]
    for line, answer in enumerate(answers):
        y = TOP + line * 58
        width = max(2, longest * answer.seconds / slowest)
        name = answer.name.upper().replace("Q0", "Q")
        parts += [
            _text(left, y + 9, f"{name}  {answer.asks}", "ink"),
            f'<rect class="track" x="{left}" y="{y + 17}" width="{longest}" '
            f'height="9" rx="2"/>',
            f'<rect class="mark" x="{left}" y="{y + 17}" width="{width:.1f}" '
            f'height="9" rx="2"/>',
            _text(left + 338, y + 26, f"{answer.seconds:.2f} s", "ink end"),
            _text(left, y + 41, answer.headline, "soft small"),
        ]
    return parts


def _text(x: float, y: float, words: str, style: str) -> str:
    return f'<text class="{style}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def _short(amount: float) -> str:
    for size, unit in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if abs(amount) >= size:
            return f"{amount / size:.1f} {unit}"
    return f"{amount:.0f}"
