"""Count the late deliveries by ship mode and by urgency."""

from __future__ import annotations

from tpch import answer

SQL = """
select
    l_shipmode,
    count(*) filter (o_orderpriority in ('1-URGENT', '2-HIGH')) as high_line_count,
    count(*) filter (o_orderpriority not in ('1-URGENT', '2-HIGH')) as low_line_count
from lineitem
join orders on o_orderkey = l_orderkey
where l_shipmode in ('MAIL', 'SHIP')
    and l_shipdate < l_commitdate
    and l_commitdate < l_receiptdate
    and l_receiptdate >= date '1994-01-01'
    and l_receiptdate < date '1995-01-01'
group by l_shipmode
order by l_shipmode
"""

if __name__ == "__main__":
    answer(
        SQL,
        asks="Which way to ship delays urgent orders?",
        headline="{l_shipmode}: {high_line_count:,} urgent ones late",
    )
