"""Jobs on a box: start, follow, receipt, records and preemption."""
