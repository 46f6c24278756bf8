"""Check and parse the box's answer about its load."""

from __future__ import annotations

from dataclasses import dataclass

from onebox.remote.json_fields import LATEST, Fields


@dataclass(frozen=True)
class GpuLoad:
    """
    The load of one GPU; None means that a number is unknown.

    *percent* is how busy it is. Memory is in bytes.
    """

    name: str
    percent: int | None
    memory: int | None
    memory_total: int | None


@dataclass(frozen=True)
class Load:
    """
    What a box uses now, and what its running job uses of it.

    *cpu* of the *cpus* CPUs are busy. Memory and disk are in bytes. *job* is the id of
    the running job, "" if none runs; *job_seconds* is how long it has run, and
    *job_cpu*, *job_memory* and *job_processes* are what it uses; the number of
    processes is None if it is unknown.
    """

    cpu: float
    cpus: int
    memory: int
    memory_total: int
    disk_free: int
    disk_total: int
    gpus: tuple[GpuLoad, ...] = ()
    job: str = ""
    job_seconds: float = 0.0
    job_cpu: float = 0.0
    job_memory: int = 0
    job_processes: int | None = 0

    @classmethod
    def parse(cls, value: object) -> Load:
        """Return the load that the JSON object *value* describes."""
        fields = Fields(value, "load")
        gpus = [Fields(gpu, "load of a GPU") for gpu in fields.objects("gpus")]
        return cls(
            cpu=fields.number("cpu", least=-LATEST),
            cpus=fields.integer("cpus"),
            memory=fields.integer("memory"),
            memory_total=fields.integer("memory_total"),
            disk_free=fields.integer("disk_free"),
            disk_total=fields.integer("disk_total"),
            gpus=tuple(
                GpuLoad(
                    gpu.text("name"),
                    gpu.integer_or_none("percent"),
                    gpu.integer_or_none("memory"),
                    gpu.integer_or_none("memory_total"),
                )
                for gpu in gpus
            ),
            job="" if fields["job"] is None else fields.job("job"),
            job_seconds=fields.number_or_none("job_seconds") or 0.0,
            job_cpu=fields.number("job_cpu"),
            job_memory=fields.integer("job_memory"),
            job_processes=fields.integer_or_none("job_processes"),
        )
