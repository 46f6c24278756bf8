"""Add up the profit on green parts, by nation and year."""

from __future__ import annotations

from tpch import answer

SQL = """
select
    n_name as nation,
    year(o_orderdate) as o_year,
    sum(
        l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity
    ) as sum_profit
from lineitem
join part on p_partkey = l_partkey
join partsupp on ps_partkey = l_partkey and ps_suppkey = l_suppkey
join supplier on s_suppkey = l_suppkey
join orders on o_orderkey = l_orderkey
join nation on n_nationkey = s_nationkey
where p_name like '%green%'
group by n_name, o_year
order by n_name, o_year desc
"""

if __name__ == "__main__":
    answer(
        SQL,
        asks="What did green parts earn, by nation and year?",
        headline="{nation} earned {sum_profit:,.0f} in {o_year}",
    )
