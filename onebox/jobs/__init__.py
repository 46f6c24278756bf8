"""Jobs on a box: start, follow, receipt, history and preemption."""
