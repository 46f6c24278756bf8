"""Find the open orders that are worth most."""

from __future__ import annotations

from tpch import answer

SQL = """
select
    l_orderkey,
    sum(l_extendedprice * (1 - l_discount)) as revenue,
    o_orderdate,
    o_shippriority
from lineitem
join orders on o_orderkey = l_orderkey
join customer on c_custkey = o_custkey
where c_mktsegment = 'BUILDING'
    and o_orderdate < date '1995-03-15'
    and l_shipdate > date '1995-03-15'
group by l_orderkey, o_orderdate, o_shippriority
order by revenue desc, o_orderdate
limit 10
"""

if __name__ == "__main__":
    answer(
        SQL,
        asks="Which orders not yet shipped are worth most?",
        headline="order {l_orderkey} is worth {revenue:,.0f}",
    )
