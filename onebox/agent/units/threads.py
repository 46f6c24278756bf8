"""The variables that tell libraries how many threads or processes to start."""

from __future__ import annotations

from typing import Dict

# Libraries that read these start as many threads as the machine has CPUs, in each
# process, and do not look at what the other processes of the job do.
OF_UNIT = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "JULIA_NUM_THREADS",
    "MC_CORES",
    "LOKY_MAX_CPU_COUNT",
    "GOMAXPROCS",
)
# An ordinary job gets only these. With OMP_NUM_THREADS=64, joblib would start 64
# threads in each of its workers.
OF_JOB = ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "JULIA_NUM_THREADS", "MC_CORES")


def variables(cpus: int) -> Dict[str, str]:
    """Return the variables of a unit that has *cpus* CPUs."""
    return dict.fromkeys(OF_UNIT, str(cpus))


def job_variables(cpus: int) -> Dict[str, str]:
    """Return the variables of an ordinary job on a box with *cpus* CPUs."""
    return dict.fromkeys(OF_JOB, str(cpus))
