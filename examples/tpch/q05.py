"""Rank the nations of Asia by what they sell to their own people."""

from __future__ import annotations

from tpch import answer

SQL = """
select
    n_name,
    sum(l_extendedprice * (1 - l_discount)) as revenue
from lineitem
join orders on o_orderkey = l_orderkey
join customer on c_custkey = o_custkey
join supplier on s_suppkey = l_suppkey and s_nationkey = c_nationkey
join nation on n_nationkey = s_nationkey
join region on r_regionkey = n_regionkey
where r_name = 'ASIA'
    and o_orderdate >= date '1994-01-01'
    and o_orderdate < date '1995-01-01'
group by n_name
order by revenue desc
"""

if __name__ == "__main__":
    answer(
        SQL,
        asks="Which nation of Asia sells most at home?",
        headline="{n_name} sells for {revenue:,.0f}",
    )
