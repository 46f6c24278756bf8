"""Find the customers who sent back goods of the highest value."""

from __future__ import annotations

from tpch import answer

SQL = """
select
    c_custkey,
    c_name,
    sum(l_extendedprice * (1 - l_discount)) as revenue,
    c_acctbal,
    n_name,
    c_address,
    c_phone,
    c_comment
from lineitem
join orders on o_orderkey = l_orderkey
join customer on c_custkey = o_custkey
join nation on n_nationkey = c_nationkey
where o_orderdate >= date '1993-10-01'
    and o_orderdate < date '1994-01-01'
    and l_returnflag = 'R'
group by all
order by revenue desc
limit 20
"""

if __name__ == "__main__":
    answer(
        SQL,
        asks="Who sent back goods of the highest value?",
        headline="{c_name} sent back {revenue:,.0f}",
    )
