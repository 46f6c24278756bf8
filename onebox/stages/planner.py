"""
Find what each stage would do, and why; change nothing.

A part that cannot be found does not end the plan: its error becomes a `Refusal`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from onebox import project_data
from onebox.boxes import no_box, other_providers
from onebox.errors import OneboxError
from onebox.exit_code import system_error
from onebox.images import recipe
from onebox.jobs import job_environment, remote_job
from onebox.project_files import checkpoint_paths, output_roots
from onebox.remote import keys
from onebox.stages import (
    data,
    environment,
    fetch,
    image,
    job_script,
    plan_box,
    plan_push,
    plan_units,
    preemption_recovery,
    preflight,
    provision,
    run,
    sweep,
    teardown,
)
from onebox.stages.plan_values import (
    Action,
    Plan,
    PlannedBox,
    PlannedDownload,
    PlannedPush,
    PlannedStep,
    Refusal,
)

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.providers.values import Box
    from onebox.remote.job_answers import JobStatus


class Planner:
    """
    Finds the parts of a plan, in the order in which the stages would find them.

    So the first refusal is the error with which the command line would end.
    """

    def __init__(
        self, context: BoxContext, stages: Sequence[str], command: str
    ) -> None:
        self.context = context
        self.stages = stages
        self.command = command or context.settings.run.command or ""
        self.units = context.chain.units
        if self.units is not None:
            self.command = self.units.text
        self.steps: dict[str, PlannedStep] = {}
        self.refusals: list[Refusal] = []
        self.questions: list[str] = []
        self.notes: list[str] = []
        self.box: Box | None = None
        self.planned_box: PlannedBox | None = None
        # Whether the provider has answered which box exists.
        self.answered = False

    def plan(self) -> Plan:
        """Return the plan."""
        context = self.context
        push: PlannedPush | None = None
        if not self._is_up_to_date():
            self._check_project()
            self._find_box()
            if "provision" in self.stages:
                self._plan_provision()
            if "push" in self.stages:
                with self._catching("push"):
                    push = self._plan_push()
                    self._plan_packages()
            if "image" in self.stages:
                self._plan_image()
            if "image" in self.stages or "provision" in self.stages:
                self.planned_box = self._plan_box()
                with self._catching("provision"):
                    keys.require_client()
            if "run" in self.stages:
                self._plan_run()
            for name, module in (("fetch", fetch), ("teardown", teardown)):
                if name in self.stages and self.answered:
                    with self._catching(name):
                        done = no_box.message(context) if name == "teardown" else ""
                        self._reasoned(name, module.reason(context), done)
        order = (
            *("image", "provision", "push", "data", "packages"),
            *("run", "fetch", "teardown"),
        )
        for name in self.stages:
            refusals = [one.message for one in self.refusals if one.step == name]
            if refusals:
                self._step(name, "refuse", refusals[0])
            elif name not in self.steps:
                self._step(name, "unknown", "the provider has not answered")
        settings = context.settings
        return Plan(
            title=context.title,
            provider=context.provider_name,
            size=settings.vm,
            command=self.command or None,
            box=self.planned_box,
            steps=tuple(self.steps[name] for name in order if name in self.steps),
            push=push,
            outputs=tuple(output_roots(context)),
            checkpoints=checkpoint_paths(context),
            questions=tuple(self.questions),
            notes=(*self.notes, *self._links(), *self._unit_notes()),
            refusals=tuple(self.refusals),
            warnings=context.invocation.warnings,
            units=plan_units.find(context, self.planned_box),
        )

    def _links(self) -> list[str]:
        if "run" not in self.stages:
            return []
        return [note for note in [preflight.describe_links(self.context)] if note]

    def _unit_notes(self) -> list[str]:
        return [] if self.units is None else [*sweep.notes(self.context, self.units)]

    @contextmanager
    def _catching(self, step: str) -> Iterator[None]:
        """Turn an error of the body into a refusal in the line of *step*."""
        try:
            yield
        except OneboxError as error:
            self._refuse(step, error)
        except OSError as error:
            self._refuse(step, system_error(error))

    def _refuse(self, step: str, error: OneboxError) -> None:
        # A stage can find an error that an earlier one has found.
        if error.message not in [refusal.message for refusal in self.refusals]:
            refusal = Refusal(step, error.message, error.next, error.code)
            self.refusals.append(refusal)

    def _step(self, name: str, action: Action, reason: str) -> None:
        self.steps[name] = PlannedStep(name, action, reason)

    def _reasoned(self, name: str, reason: str | None, up_to_date: str) -> None:
        """Add the step of a stage that has a *reason* to run, or None."""
        action: Action = "up to date" if reason is None else "run"
        self._step(name, action, up_to_date if reason is None else reason)

    def _refused(self, step: str) -> bool:
        return any(refusal.step == step for refusal in self.refusals)

    def _is_up_to_date(self) -> bool:
        """Return whether the job is skipped, so that no other stage runs either."""
        context = self.context
        configured = not context.invocation.own_command
        if self.units is not None:
            return False
        if "run" not in self.stages or context.settings.run.when == "always":
            return False
        self._check_files()
        with self._catching("run"):
            if configured and not self.refusals and run.reason(context) is None:
                self.steps.clear()
                self._step("run", "up to date", run.UP_TO_DATE)
                self.stages = ["run"]
                return True
        return False

    def _check_files(self) -> None:
        """Refuse what `preflight` finds, unless no planned stage needs it."""
        if set(self.stages) <= {"run", "fetch", "teardown"}:
            return
        steps = {"image": "image", "push": "push"}
        for table, error in preflight.problems(self.context):
            step = steps.get(table, self.stages[-1])
            if step in self.stages:
                self._refuse(step, error)

    def _check_project(self) -> None:
        """Add the refusals that need neither the provider nor the box."""
        self._check_files()
        if "run" in self.stages:
            if not self.context.invocation.own_command and self.units is None:
                with self._catching("run"):
                    run.configured_command(self.context)
            with self._catching("run"):
                job_environment.secret_values(self.context)

    def _find_box(self) -> None:
        step = "provision" if "provision" in self.stages else self.stages[-1]
        with self._catching(step):
            self.box = self.context.find_box()
            self.answered = True

    @property
    def _running(self) -> bool:
        return self.box is not None and self.box.state == "running"

    def _plan_provision(self) -> None:
        context = self.context
        with self._catching("provision"):
            if not self.answered:
                # An error about another provider needs no answer.
                other_providers.refuse(context)
                return
            reason = provision.reason(context)
            up = "" if reason else provision.describe_up_to_date(context)
            self._reasoned("provision", reason, up)

    def _plan_push(self) -> PlannedPush | None:
        context = self.context
        if self._refused("push"):
            return None
        found, left_out = plan_push.find(context, self.box, compare=self._running)
        self._plan_data(found.downloads)
        reason = plan_push.describe(found, self.box)
        if not self.answered:
            reason = f"{plan_push.amount(found)}; it is unknown what the box has"
        detail = "; ".join(filter(None, [reason, left_out]))
        equal = self._running and not (found.changed or found.deleted)
        self._step("push", "up to date" if equal else "run", detail)
        return found

    def _plan_data(self, found: PlannedDownload | None) -> None:
        if found is None:
            return
        reason = data.describe_sources(self.context, project_data.find(self.context))
        if 0 < found.missing < found.files:
            verb = "differs" if found.missing == 1 else "differ"
            reason += f"; {found.missing:,} {verb}"
        if found.deleted:
            reason += f"; {found.deleted:,} deleted"
        if self.box is None and recipe.keeps_data(self.context):
            reason += "; from the image what has not changed"
        duration = data.describe_time(found.missing_bytes, found.bytes_per_second)
        reason = "; ".join(filter(None, [reason, duration]))
        differs = found.missing or found.deleted
        self._step("data", "run" if differs else "up to date", reason)

    def _plan_packages(self) -> None:
        if self._refused("push") or not self.answered:
            return
        update = environment.find_update(self.context, self.box)
        stay = environment.lingering(self.context, self.box)
        if update is not None:
            self._step("packages", "run", update.reason)
        elif stay:
            self._step("packages", "up to date", stay)

    def _plan_image(self) -> None:
        context = self.context
        if self._refused("image") or not self.answered:
            return
        with self._catching("image"):
            reason = image.reason(context)
            if reason and "image" not in context.invocation.stages:
                outdated = image.describe_outdated(context)
                if outdated:
                    self._step("image", "later", outdated)
                    return
            up = "" if reason else image.describe_up_to_date(context)
            self._reasoned("image", reason, up)

    def _plan_box(self) -> PlannedBox | None:
        context = self.context
        if not self.answered:
            return None
        with self._catching("provision"):
            planned, limit = plan_box.find(context, self.box)
            if "run" in self.stages and not self.refusals:
                planned = replace(
                    planned, other_sizes=plan_box.other_sizes(context, planned)
                )
            if limit is not None:
                self._refuse("provision", limit)
            question = plan_box.question(context, planned)
            if question:
                self.questions.append(question)
            return planned
        return None

    def _plan_run(self) -> None:
        context = self.context
        if not self.answered:
            return
        if self.box is None and not context.invocation.only:
            with self._catching("run"):
                run.check_script(context)
            self.notes += filter(None, [run.describe_missing_script(context)])
        if self._refused("run"):
            return
        with self._catching("run"):
            if self.planned_box is not None:
                sweep.check_size(context, self.box)
            reason = plan_units.describe(context, self.planned_box)
            reason = reason or run.reason(context) or run.ALWAYS
            last_job = remote_job.latest(context) if self._running else None
            remote_job.refuse_running(context, last_job)
            resumed = preemption_recovery.describe_resume(context, self.command)
            absent, command = "", self.command
            if self.units is not None:
                command = self.units.first_line
            if not self._refused("push") and not self.notes:
                absent = job_script.describe_absent(context, command)
            if self.units is not None and resumed:
                reason, resumed = f"{reason}; {resumed}", ""
            reason = "; ".join(filter(None, [reason, absent]))
            self._step("run", "run", resumed or reason)
            self._plan_earlier_job(last_job)
        if self._refused("run") or context.invocation.only:
            return
        if "fetch" not in self.stages:
            self._plan_fetch()
        if "teardown" not in self.stages:
            self._plan_teardown()

    def _plan_earlier_job(self, last_job: JobStatus | None) -> None:
        """Add the question that `run` asks if the same command has succeeded."""
        if run.is_rerun(self.context, last_job, self.command):
            assert last_job is not None
            self.questions.append(
                f"job {last_job.job} has succeeded with this command: its outputs are "
                "fetched first, then run asks before it runs the command again"
            )

    def _plan_fetch(self) -> None:
        outputs = ", ".join(output_roots(self.context))
        self._step("fetch", "run", outputs or "no [fetch] outputs are configured")

    def _plan_teardown(self) -> None:
        context = self.context
        if self.box is None and context.invocation.creates_temporary_box:
            reason = "the chain creates the box for this job only"
        elif not context.invocation.owes_teardown(context.store.record.temporary):
            self._step("teardown", "no", "the box is kept")
            return
        elif "teardown" in context.invocation.stages:
            reason = "teardown is on the command line"
        else:
            reason = "an earlier chain created the box for its job only"
        self._step("teardown", "run", reason)
