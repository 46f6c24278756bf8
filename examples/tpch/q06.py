"""Add up what small discounts cost in 1994: one number, known in advance."""

from __future__ import annotations

from tpch import answer

SQL = """
select sum(l_extendedprice * l_discount) as revenue
from lineitem
where l_shipdate >= date '1994-01-01'
    and l_shipdate < date '1995-01-01'
    and l_discount between 0.05 and 0.07
    and l_quantity < 24
"""

if __name__ == "__main__":
    answer(
        SQL,
        asks="What did small discounts cost in 1994?",
        headline="{revenue:,.4f} given away",
    )
