"""Write a job, or the units of `[map]`, as a script for Slurm's `sbatch`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from onebox import formatting
from onebox.errors import UsageError
from onebox.exports import shell
from onebox.exports.shell import comment, quote
from onebox.images import python_env
from onebox.settings import Settings
from onebox.units.plan import UnitPlan

# Most clusters keep Slurm's default MaxArraySize = 1001, which is above every index.
MOST_INDEX = 1000
# Slurm's default max_script_size.
MOST_BYTES = 4 << 20
_VENV = "$PWD/.venv-slurm"
# The process group of the line gets the SIGTERM that Slurm sends to this shell. A shell
# in the group may end before its programs do, and Slurm kills these with the script.
_RUN_LINE = """\
# Run a line in a process group of its own, which gets the SIGTERM that Slurm sends to
# this script, and the time to end. The exit code is that of the line.
run_line() {
  ONEBOX_ENDING='' ONEBOX_CODE=0
  set -m
  bash -c "$1" </dev/null &
  ONEBOX_CHILD=$!
  set +m
  trap 'ONEBOX_ENDING=1; kill -s TERM -- "-$ONEBOX_CHILD" 2>/dev/null || :' TERM
  until wait "$ONEBOX_CHILD" || :; ! kill -0 "$ONEBOX_CHILD" 2>/dev/null; do :; done
  wait "$ONEBOX_CHILD" || ONEBOX_CODE=$?
  for ((ONEBOX_WAIT = 0; ONEBOX_WAIT < @TENTHS@; ONEBOX_WAIT++)); do
    [ -n "$ONEBOX_ENDING" ] && kill -0 -- "-$ONEBOX_CHILD" 2>/dev/null || break
    sleep 0.1
  done
  return "$ONEBOX_CODE"
}"""


def script(settings: Settings, file: str, command: str, plan: UnitPlan | None) -> str:
    """
    Return the script.

    Args:
        file: The name that the script will have.

        command: The line of shell to run, if *plan* is None.

        plan: The units; each is a task of a job array.

    Raises:
        UsageError: The size does not say how many CPUs the job needs.
    """
    lines = [
        "#!/bin/bash",
        *comment("Made by `inv export --to=slurm` from onebox.toml."),
    ]
    lines += ["#", *_advice(settings, file, plan), "#", *_options(settings, plan), ""]
    lines += ["set -e", *_secrets(settings), *_variables(settings, plan)]
    lines += [*_environment(settings), "", _run_line(settings), ""]
    if plan is None:
        lines += [f"run_line {quote(command)}"]
    else:
        lines += _unit(plan)
    return "\n".join([*lines, ""])


def _advice(settings: Settings, file: str, plan: UnitPlan | None) -> Iterator[str]:
    """Yield the comments about what the user does, and what the script leaves out."""
    name = shell.job_name(settings)
    yield from comment(
        "Copy the project to the cluster, submit the script there in the project's "
        "folder,",
        "and copy the outputs back. Unlike onebox, rsync copies keys and caches too:",
        f"  rsync -a --exclude=.venv --exclude=.onebox ./ CLUSTER:{name}/",
        f"  ssh CLUSTER 'cd {name} && sbatch {formatting.path(file)}'",
        *(
            f"  rsync -a CLUSTER:{name}/{path} {path}"
            for path in dict.fromkeys(_outputs(settings, plan))
        ),
        *["A cluster may want --partition and --account too."][
            : not _of_cluster(settings)
        ],
        "`scancel --full --signal=TERM JOB` asks it to end, `scancel JOB` ends it.",
    )
    if plan is not None:
        yield from _about_units(settings, plan, file)
    yield from comment("", "What has no counterpart here:")
    if settings.image.setup:
        yield from comment(
            f"- [image] setup = {formatting.path(settings.image.setup)}: load modules, "
            "or run by hand what needs no root"
        )
    if settings.run.ports:
        yield from comment("- [run] ports: ssh -L PORT:NODE:PORT CLUSTER")
    if settings.map.retries and plan is not None:
        yield from comment(
            f"- [map] retries = {settings.map.retries}: submit units again by number"
        )
    yield from comment(*(f"- {part}" for part in shell.missing_parts(settings)))


def _outputs(settings: Settings, plan: UnitPlan | None) -> Iterator[str]:
    paths = [*settings.fetch.outputs, *settings.fetch.checkpoints]
    for path in [*paths, *([plan.root] if plan else [])]:
        yield quote(path)


def _about_units(settings: Settings, plan: UnitPlan, file: str) -> Iterator[str]:
    name = formatting.path(file)
    yield from comment(
        "",
        f"Each unit has {shell.LOG} and {shell.CODE}, its exit code, in its folder.",
        "Some units again:",
        f"  sbatch --array=3,17 {name}",
    )
    count, most = len(plan.units), _at_once(settings)
    if count > MOST_INDEX:
        limit = f"%{most}" if most else ""
        yield from comment(
            f"Many clusters allow no index above {MOST_INDEX} (scontrol show config: "
            "MaxArraySize). There:"
        )
        for first in range(0, count, MOST_INDEX):
            size = min(MOST_INDEX, count - first)
            yield from comment(
                f"  UNIT_OFFSET={first} sbatch --array=1-{size}{limit} {name}"
            )


def _options(settings: Settings, plan: UnitPlan | None) -> Iterator[str]:
    """Yield the options of sbatch."""
    size, table = settings.size, settings.map
    cpus, memory = size.cpus, size.memory
    if plan is not None:
        cpus, most = table.cpus, _at_once(settings)
        memory = table.memory or (memory // most if most else 0)
    if not cpus:
        raise UsageError(
            f"--vm={settings.vm} is a machine type, which Slurm does not know",
            next="inv export --to=slurm --vm=cpus=64,memory=256",
        )
    yield f"#SBATCH --job-name={shell.job_name(settings)}"
    yield "#SBATCH --nodes=1"
    yield "#SBATCH --ntasks=1"
    yield f"#SBATCH --cpus-per-task={cpus}"
    if memory:
        yield f"#SBATCH --mem={_megabytes(memory)}M"
    cluster = _of_cluster(settings)
    if not any(option.startswith("--time=") for option in cluster):
        yield f"#SBATCH --time={_time(settings.limits.max_hours)}"
    yield from (f"#SBATCH {option}" for option in cluster)
    grace = math.ceil(settings.run.cancel_grace)
    if grace:
        yield f"#SBATCH --signal=B:TERM@{grace}"
    if plan is None:
        yield "#SBATCH --output=%x-%j.log"
        return
    limit = f"%{most}" if most else ""
    yield f"#SBATCH --array=1-{len(plan.units)}{limit}"
    yield "#SBATCH --output=%x-%A.log"
    yield "#SBATCH --open-mode=append"


def _of_cluster(settings: Settings) -> list[str]:
    """Return the options of sbatch in the table [slurm]."""
    return list(getattr(settings.providers["slurm"], "sbatch_options", ()))


def _at_once(settings: Settings) -> int:
    """Return how many units a box of the size runs at once, 0 if it is not known."""
    size, table = settings.size, settings.map
    if not size.cpus:
        return 0
    most = size.cpus // table.cpus
    if table.memory and size.memory:
        most = min(most, size.memory // table.memory)
    return max(1, most)


def _megabytes(memory: int) -> int:
    return math.ceil(memory / (1 << 20))


def _time(hours: float) -> str:
    """
    Return a time as Slurm reads it, rounded up to minutes.

    >>> _time(8), _time(30.5)
    ('0-08:00:00', '1-06:30:00')
    """
    minutes = math.ceil(round(hours * 60, 6))
    return f"{minutes // 1440}-{minutes // 60 % 24:02}:{minutes % 60:02}:00"


def _secrets(settings: Settings) -> Iterator[str]:
    if settings.run.secrets:
        yield ""
        yield from comment(
            "[run] secrets: export them before sbatch, which hands them on unless "
            "--export says",
            "otherwise. Their values do not belong into this file.",
        )
    for name in settings.run.secrets:
        yield f': "${{{name}:?}}"'


def _variables(settings: Settings, plan: UnitPlan | None) -> Iterator[str]:
    yield ""
    if plan is not None:
        yield from shell.exports(shell.thread_variables(settings, settings.map.cpus))
    else:
        cpus = settings.size.cpus
        for name in shell.thread_names(settings):
            yield f'export {name}="${{SLURM_CPUS_PER_TASK:-{cpus}}}"'
    yield from shell.exports(shell.own_variables(settings))
    yield from shell.exports(settings.run.env)


def _environment(settings: Settings) -> Iterator[str]:
    """Yield the lines that build the Python environment once, and activate it."""
    image = settings.image
    if not python_env.is_requested(image):
        return
    inputs = f"echo {quote(image.python or '')};"
    if image.requirements:
        inputs += f" cat -- {quote(image.requirements)};"
    yield ""
    yield from comment(
        "The Python environment: the first task builds it, and another list changes it."
    )
    yield f'ONEBOX_VENV="{_VENV}"'
    sum = f"$({{ {inputs} }} | cksum | tr -c '0-9\\n' -)"
    yield f"ONEBOX_MARK=$ONEBOX_VENV/.made-{sum}"
    yield 'until [ -e "$ONEBOX_MARK" ]; do'
    yield '  if mkdir "$ONEBOX_VENV.lock" 2>/dev/null; then'
    yield "    trap 'rmdir \"$ONEBOX_VENV.lock\"' EXIT"
    yield "    ("
    yield from (f"      {line}" for line in shell.exports(image.env))
    built = shell.build_environment(image, settings.root, "$ONEBOX_VENV")
    yield from (f"      {line}" for line in built)
    yield "    )"
    yield '    touch "$ONEBOX_MARK"'
    yield '    rmdir "$ONEBOX_VENV.lock"'
    yield "    trap - EXIT"
    yield '  elif [ -d "$ONEBOX_VENV.lock" ]; then'
    yield '    echo "waiting for $ONEBOX_VENV.lock; remove it if no task builds" >&2'
    yield "    sleep 5"
    yield "  elif [ ! -w . ]; then"
    yield '    echo "cannot write to $PWD" >&2; exit 73'
    yield "  fi"
    yield "done"
    yield from shell.activate("$ONEBOX_VENV")


def _run_line(settings: Settings) -> str:
    tenths = max(1, math.ceil(settings.run.cancel_grace * 10))
    return _RUN_LINE.replace("@TENTHS@", str(tenths))


def _unit(plan: UnitPlan) -> Iterator[str]:
    yield (
        "ONEBOX_UNIT=$((${SLURM_ARRAY_TASK_ID:?sbatch sets it} + ${UNIT_OFFSET:-0}))"
    )
    yield from shell.unit_lines(plan)
    folder = '"$ONEBOX_UNIT_OUTPUTS/'
    yield f'run_line "$ONEBOX_LINE" >{folder}{shell.LOG}" 2>&1 || :'
    yield f'echo "$ONEBOX_CODE" >{folder}{shell.CODE}"'
    yield 'exit "$ONEBOX_CODE"'
