"""Run jobs on the box: supervisor, state, exit record, log and metrics."""
