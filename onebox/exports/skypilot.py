"""Write a job, or the units of `[map]`, as a task of SkyPilot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

from onebox import formatting
from onebox.errors import UsageError
from onebox.exports import emitter, shell
from onebox.exports.shell import comment, quote
from onebox.images import python_env
from onebox.providers import CLOUDS, PROVIDERS
from onebox.settings import Settings
from onebox.settings.ports import PortPair
from onebox.units.plan import UnitPlan

# The folder of the job on the machine; onebox's own is another one.
WORKDIR = "~/sky_workdir"
_VENV = "$HOME/.venv"
_GB = 1 << 30
# OMP_NUM_THREADS, which SkyPilot sets, changes what nproc prints.
_CPUS = "$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)"
_END = "ONEBOX_END"
# SkyPilot runs scripts with `bash -i`, which changes each "!" in them.
_FIRST = "set +H  # each ! stays as it is"


def task(
    settings: Settings,
    file: str,
    command: str,
    plan: UnitPlan | None,
    data: Iterable[str] = (),
) -> str:
    """
    Return the file of the task.

    Args:
        file: The name that the file will have.

        command: The line of shell to run, if *plan* is None.

        plan: The units, which all run on one machine.

        data: The paths of the project that its upload leaves out, because git ignores
            them.

    Raises:
        UsageError: SkyPilot has no machine type for the size.
    """
    lines = [*comment("Made by `inv export --to=skypilot` from onebox.toml."), "#"]
    lines += [*_advice(settings, file, plan), ""]
    lines += emitter.table({"name": shell.job_name(settings)})
    lines += ["", *emitter.table({"resources": _resources(settings)}, 0)]
    lines += [*_about_resources(settings), "", 'workdir: "."']
    mounts = {f"{WORKDIR}/{path}": path for path in data}
    if mounts:
        lines += [""]
        lines += comment(
            "Git ignores these, so the upload of workdir does too. A .gitignore in one "
            "of them",
            "counts here, unless an empty .skyignore is beside it.",
        )
        lines += emitter.table({"file_mounts": mounts})
    if settings.run.env:
        lines += ["", *emitter.table({"envs": dict(settings.run.env)})]
    if settings.run.secrets:
        names = settings.run.secrets
        given = " ".join(f"--secret {name}" for name in names)
        lines += ["", *comment(f"Their values are yours: sky launch {given} …")]
        lines += emitter.table({"secrets": dict.fromkeys(names)})
    setup = [*_setup(settings)]
    if setup:
        lines += ["", *emitter.script("setup", _text(setup))]
    run = _units(settings, plan) if plan else [command.rstrip("\n")]
    lines += ["", *emitter.script("run", _text([*_before(settings, plan), *run]))]
    return "\n".join([*lines, ""])


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _advice(settings: Settings, file: str, plan: UnitPlan | None) -> Iterator[str]:
    """Yield the comments about what the user does, and what the task leaves out."""
    name = shell.job_name(settings)
    paths = [*settings.fetch.outputs, *settings.fetch.checkpoints]
    outputs = dict.fromkeys(map(quote, [*paths, *([plan.root] if plan else [])]))
    yield from comment(
        "In the project's folder (checked with SkyPilot 0.14):",
        f"  sky launch -c {name} {formatting.path(file)}",
        *(f"  rsync -a {name}:sky_workdir/{path} {path}" for path in outputs),
        f"  sky down {name}",
        "SkyPilot uploads what git does not ignore; with a file .skyignore, what that "
        "does not",
        "name. Unlike onebox, it leaves out no keys, caches and outputs.",
        "",
        "What has no counterpart here:",
        f"- [limits] max_hours = {settings.limits.max_hours:g}: `timeout` before the "
        "command",
    )
    if settings.push.code != (".",):
        yield from comment("- [push] code: workdir is the whole project")
    if settings.run.ports:
        ports = " ".join(f"-L {_forwarded(port)}" for port in settings.run.ports)
        yield from comment(f"- [run] ports: ssh {ports} {name}")
    if settings.provider in CLOUDS and not PROVIDERS[settings.provider].skypilot:
        title = PROVIDERS[settings.provider].title
        yield from comment(f"- the provider: SkyPilot has no {title}")
    yield from comment(*(f"- {part}" for part in shell.missing_parts(settings)))


def _forwarded(text: str) -> str:
    port = PortPair.parse(text)
    return f"{port.local}:localhost:{port.remote}"


def _resources(settings: Settings) -> dict[str, object]:
    """Return the resources; a list of candidates is in the order of preference."""
    size, limits = settings.size, settings.limits
    common: dict[str, object] = {}
    candidates = [*_machines(settings)]
    if not candidates:
        raise UsageError(
            f"--vm={settings.vm} is a machine type, which SkyPilot does not know",
            next="inv export --to=skypilot --vm=cpus=64,memory=256",
        )
    if settings.wants_spot:
        spots = [True, *([False] if limits.spot_fallback else [])]
        candidates = [{**one, "use_spot": spot} for spot in spots for one in candidates]
    disk = size.disk or getattr(settings.providers[settings.provider], "disk", None)
    if isinstance(disk, int):
        common["disk_size"] = math.ceil(disk / _GB)
    prices = [*filter(None, (limits.max_price, size.max_price))]
    if prices:
        common["max_hourly_cost"] = min(prices)
    if not settings.wants_spot:
        common["autostop"] = {"idle_minutes": max(1, round(limits.idle_minutes))}
    if len(candidates) == 1:
        return {**candidates[0], **common}
    return {**common, "ordered": candidates}


def _machines(settings: Settings) -> Iterator[dict[str, object]]:
    """Yield the machines that the size allows, in the order of preference."""
    size, cloud = settings.size, PROVIDERS[settings.provider]
    needs: dict[str, object] = {}
    if size.cpus:
        needs["cpus"] = f"{size.cpus}+"
    if size.memory:
        needs["memory"] = f"{size.memory / _GB:g}+"
    if not cloud.skypilot:
        # SkyPilot finds the cloud of a machine type itself.
        names = itertools.chain.from_iterable(
            names for name, names in size.types.items() if PROVIDERS[name].skypilot
        )
        if needs:
            yield needs
        else:
            for name in dict.fromkeys(names):
                yield {"instance_type": name}
        return
    listed: list[dict[str, object]] = [
        {"instance_type": name} for name in size.types.get(cloud.name, ())
    ]
    given = settings.source(f"{cloud.name}.region") != "default"
    table = settings.providers[cloud.name]
    regions = getattr(table, "all_regions", ()) if given else ()
    for machine, region in itertools.product(listed or [needs], regions or [""]):
        place = {"region": region} if region else {}
        yield {"cloud": cloud.skypilot, **place, **machine}


def _about_resources(settings: Settings) -> Iterator[str]:
    """Yield the comments below the resources."""
    limits = settings.limits
    lines = []
    if limits.max_price or settings.size.max_price:
        lines.append("An older SkyPilot may not know max_hourly_cost.")
    if settings.wants_spot:
        lines += [
            "A spot machine can only be removed, with its disk and the outputs. To end "
            "the bill so:",
            f"  autostop: {{idle_minutes: {max(1, round(limits.idle_minutes))}, "
            "down: true}",
        ]
    else:
        lines.append("autostop keeps the disk, which is billed, until `sky down`.")
    yield from (f"  {line}" for line in comment(*lines))


def _setup(settings: Settings) -> Iterator[str]:
    image = settings.image
    if not (image.setup or python_env.is_requested(image)):
        return
    yield _FIRST
    yield "set -e"
    yield from shell.exports(image.env)
    if image.setup:
        yield f"bash {quote(image.setup)}"
    if python_env.is_requested(image):
        yield from shell.build_environment(image, settings.root, _VENV)


def _before(settings: Settings, plan: UnitPlan | None) -> Iterator[str]:
    """Yield the lines of `run` before the command."""
    yield _FIRST
    yield from shell.exports(shell.own_variables(settings))
    image = settings.image
    if image.setup or image.packer or image.use or python_env.is_requested(image):
        yield from shell.activate(_VENV)
    if plan is not None:
        yield from shell.exports(shell.thread_variables(settings, settings.map.cpus))
        return
    for name in shell.thread_names(settings):
        yield f'export {name}="{_CPUS}"'


def _units(settings: Settings, plan: UnitPlan) -> Iterator[str]:
    """Yield the lines that run all units, as many at once as fit on the machine."""
    table, count = settings.map, len(plan.units)
    yield from comment("One unit; each has a log and an exit code in its folder.")
    yield "ONEBOX_SCRIPT=$(mktemp)"
    yield f"cat >\"$ONEBOX_SCRIPT\" <<'{_END}'"
    yield "ONEBOX_UNIT=$1 ONEBOX_DONE=$2 ONEBOX_CODE=0"
    yield from shell.unit_lines(plan)
    folder = '"$ONEBOX_UNIT_OUTPUTS/'
    yield (
        f'bash -c "$ONEBOX_LINE" </dev/null >{folder}{shell.LOG}" 2>&1 '
        "|| ONEBOX_CODE=$?"
    )
    yield f'echo "$ONEBOX_CODE" >{folder}{shell.CODE}"'
    yield 'if [ "$ONEBOX_CODE" = 0 ]; then'
    yield '  echo "$ONEBOX_UNIT" >>"$ONEBOX_DONE"'
    yield "else"
    yield '  echo "unit $ONEBOX_UNIT: exit $ONEBOX_CODE" >&2'
    yield "fi"
    yield _END
    yield f"ONEBOX_AT_ONCE=$(({_CPUS} / {table.cpus}))"
    if table.memory:
        kilobytes = math.ceil(table.memory / 1024)
        yield (
            f"ONEBOX_FIT=$(awk '/^MemTotal:/ {{print int($2 / {kilobytes})}}' "
            "/proc/meminfo)"
        )
        yield ('[ "$ONEBOX_FIT" -ge "$ONEBOX_AT_ONCE" ] || ONEBOX_AT_ONCE=$ONEBOX_FIT')
    yield '[ "$ONEBOX_AT_ONCE" -ge 1 ] || ONEBOX_AT_ONCE=1'
    yield ': >"$ONEBOX_SCRIPT.done"'
    tries = " ".join(map(str, range(1, table.retries + 2)))
    yield f"for ONEBOX_TRY in {tries}; do"
    yield (
        f'  seq {count} | grep -vxFf "$ONEBOX_SCRIPT.done" >"$ONEBOX_SCRIPT.left" '
        "|| break"
    )
    yield (
        '  xargs -n 1 -P "$ONEBOX_AT_ONCE" sh -c '
        '\'bash "$0" "$1" "$0.done" || :\' "$ONEBOX_SCRIPT" '
        '<"$ONEBOX_SCRIPT.left"'
    )
    yield "done"
    yield (
        f'ONEBOX_FAILED=$(seq {count} | grep -vxFf "$ONEBOX_SCRIPT.done" | '
        "tr '\\n' ' ')"
    )
    yield 'if [ -n "$ONEBOX_FAILED" ]; then'
    yield '  echo "failed units: $ONEBOX_FAILED" >&2'
    yield "  exit 1"
    yield "fi"
