"""Find the customers who placed the largest orders."""

from __future__ import annotations

from tpch import answer

SQL = """
with large as (
    select l_orderkey as orderkey, sum(l_quantity) as quantity
    from lineitem
    group by l_orderkey
    having sum(l_quantity) > 300
)
select
    c_name,
    c_custkey,
    o_orderkey,
    o_orderdate,
    o_totalprice,
    quantity
from large
join orders on o_orderkey = orderkey
join customer on c_custkey = o_custkey
order by o_totalprice desc, o_orderdate
limit 100
"""

if __name__ == "__main__":
    answer(
        SQL,
        asks="Who placed the largest orders?",
        headline="{c_name} ordered {quantity:,.0f} pieces",
    )
