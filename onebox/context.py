"""
One project's box of one name, and what the stages share while they work on it.

A session is opened by the first stage of a command line and lives as long as
the line. It knows what is configured, which box is there and how to reach it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from onebox import providers, subprocess_env
from onebox.command_hints import Hints
from onebox.errors import ConnectionLost, Lost, OneboxError, Preempted, UsageError
from onebox.invocation import Invocation
from onebox.providers.base import Box, Image, Offer, Provider
from onebox.remote import connection, keys
from onebox.remote.channel import AgentChannel
from onebox.settings import Settings, load
from onebox.store import project_id
from onebox.store.box_store import (
    BoxStore,
    Record,
    config_dir,
    local_root,
    owner,
    state_dir,
)
from onebox.transfer import fetch_outputs
from onebox.ui.screen import Screen

# A box that is going down is given this long to say why.
STOPPING_SECONDS = 10.0
# A connection that breaks again and again asks only so often whether this
# machine has moved.
ADMIT_SECONDS = 30.0


class BoxContext:
    """
    What every stage is given.

    Attributes:
        settings: onebox.toml, variables and flags, checked.

        line: What the command line asks for.

        screen: Where to say things.

        notebook: What this machine remembers of the box.

        done: Results of the stages that this line has run, by plugin's key.

        offers: What the provider has said that there is, by the image's id.

        images: The owner's images, once the provider has been asked.

        warned: What this line has been warned of.

        greeted: What the line is about has been said.

        headlines: How many boxes have been said, with what they may cost.

        ended: How many boxes this line has seen to their end.

        begun: How many jobs this line has begun.

        job_state: What is known of this line's job: none yet (""), "starting" while
            the box is asked, "started".

        aside: Boxes that the cloud has taken and whose disks stay for now: another
            one has their place.
    """

    def __init__(
        self,
        root: Path,
        environ: Mapping[str, str],
        settings: Settings,
        line: Invocation,
        screen: Screen,
    ) -> None:
        self.root = root
        self.environ = environ
        self.settings = settings
        self.line = line
        self.screen = screen
        self.done: dict[Any, Any] = {}
        self.offers: dict[str, list[Offer]] = {}
        self.images: list[Image] | None = None
        self.ended = 0
        self.begun = 0
        self.job_state = ""
        self.superseded: set[str] = set()
        self.spent: dict[str, float] = {}
        self.warned: set[str] = set()
        self.owner = owner(config_dir(environ))
        subprocess_env.hide(settings.run.secrets)
        self.project = _project(root, settings, state_dir(environ))
        self.store = BoxStore(
            state_dir(environ) / "projects" / self.project / settings.name, screen.warn
        )
        self.key = (self.project, settings.name, settings.provider, settings.vm)
        self.into = self.usual_into
        self.paper: dict[str, Any] | None = None
        self.fetched: fetch_outputs.Fetched | None = None
        self.fetched_into = root
        # The job of an earlier line whose outputs this line has fetched.
        self.fetched_earlier = ""
        # The digest of the code and data that this line has pushed.
        self.pushed = ""
        self.doing = ""
        self.headlines = 0
        self.greeted = False
        # The size that was announced, whether a dearer one may be made instead, and
        # what the earlier attempts at the run have cost (USD; None: not known).
        self.offered: Offer | None = None
        self.agreed = False
        self.spent_before: float | None = 0.0
        # Whether this line has found code and data to be such as can be pushed.
        self.looked = False
        self._admitted = 0.0
        self._seen: set[str] = set()
        self._opened = time.monotonic()
        self._ssh: connection.SSHConnection | None = None

    @classmethod
    def open(
        cls,
        root: str,
        environ: Mapping[str, str],
        flags: Mapping[str, object],
        line: Invocation,
        tasks: Mapping[str, str] | None = None,
    ) -> BoxContext:
        """
        Read the configuration and make the session.

        Args:
            tasks: What each of our tasks is called on the command line, if not by
                its own name.

        Raises:
            ConfigError: onebox.toml or a variable is wrong.
        """
        settings = load(Path(root), environ, flags)
        # Without it a command reaches the box that onebox.toml names.
        typed = settings.source("name").startswith(("--", "ONEBOX_"))
        screen = Screen(environ, Hints(tasks or {}, settings.name if typed else ""))
        return cls(Path(root), environ, settings, line, screen)

    # -- the box ---------------------------------------------------------------

    @cached_property
    def provider(self) -> Provider:
        """Return the provider of the box that there is, else the configured one."""
        return self.provider_called(self.provider_name)

    @cached_property
    def provider_name(self) -> str:
        """
        Return the provider's name; the library of the configured one stays unloaded.

        Another provider holds only for as long as the recorded box exists there, or
        something was begun there and not seen to its end.
        """
        wanted, record = self.settings.provider, self.store.record
        if self.given("provider"):
            return wanted
        recorded = record.provider if record.box else ""
        if recorded and (recorded == wanted or self._may_exist(record)):
            return recorded
        begun = [str(i.get("provider", "")) for i in self.store.open_intents()]
        return next(filter(None, begun), wanted)

    def _may_exist(self, record: Record) -> bool:
        """Tell whether the recorded box exists, or its own provider is silent."""
        try:
            return self.exists(record)
        except OneboxError:
            return True

    def exists(self, record: Record) -> bool:
        """
        Ask the provider of a recorded box whether it is there, or may be.

        Raises:
            OneboxError: The provider did not answer.
        """
        provider = self.provider_called(record.provider)
        found = provider.get(record.box, record.place)
        if found is None:
            return self._may_lag(record.created, provider)
        return found.state != "gone"

    def provider_called(self, name: str) -> Provider:
        """Return one provider, with its own table of onebox.toml."""
        table = self.settings.providers[providers.row_of(name).name]
        return providers.load(name, table, local_root(self.environ))

    @cached_property
    def box(self) -> Box | None:
        """Return this project's box of this name, as the provider sees it now."""
        mine = [
            box
            for box in self._machines
            if box.tags.kind == "box" and box.id not in self.superseded
        ]
        # Beside one that is on there may be disks of some that the cloud has taken.
        live = [box for box in mine if box.state != "stopped"]
        if len(live) > 1:
            ids = ", ".join(box.id for box in live)
            raise OneboxError(
                f"there are {len(live)} boxes called {self.title}: {ids}",
                next="inv sweep",
            )
        return max(live or mine, key=lambda box: box.created, default=None)

    @property
    def others(self) -> list[Box]:
        """Return those that the cloud has taken and whose disks are still there."""
        ours = self.box.id if self.box is not None else ""
        return [
            box
            for box in self._machines
            if box.tags.kind == "box" and box.id != ours and box.state == "stopped"
        ]

    @property
    def builders(self) -> list[Box]:
        """Return the boxes that images of this one's are being built on."""
        return [box for box in self._machines if box.tags.kind == "builder"]

    @cached_property
    def _machines(self) -> list[Box]:
        places = {place for place, _ in self._begun().values() if place}
        found = [
            box
            for box in self.provider.find(self.owner, sorted(places))
            if box.tags.project == self.project
            and box.tags.name == self.settings.name
            and box.state != "gone"
        ]
        known = {box.id for box in found}
        self._seen |= known
        # Only now is the provider's clock known.
        for box_id, (place, created) in self._begun().items():
            if box_id not in known and self._may_lag(created):
                late = self.settled(box_id, place, created)
                found += [late] if late and late.state != "gone" else []
        return found

    def _begun(self) -> dict[str, tuple[str, float]]:
        """
        Return place and time of each box that this provider was asked to make.

        The time is the provider's.

        One that was made may not show yet, unless it had been seen before its
        removal began: if that is missing, it is gone.
        """
        here, record = self.provider.name, self.store.record
        begun = {}
        if record.box and record.provider in ("", here):
            begun[record.box] = (record.place, record.created)
        for intent in self.store.open_intents():
            if intent.get("provider", here) != here or "box" not in intent:
                continue
            box, place = str(intent["box"]), str(intent.get("place", ""))
            if intent["do"] == "create":
                begun[box] = (place, self.there(float(intent["at"])))
            elif intent["do"] == "delete" and intent.get("seen"):
                begun[box] = (place, 0.0)
        return begun

    def seen(self, box: str) -> bool:
        """Tell whether the provider has shown a box to this line."""
        return box in self._seen

    def _may_lag(self, created: float, provider: Provider | None = None) -> bool:
        """Tell whether a box made then may still be missing from the lists."""
        provider = provider or self.provider
        age = provider.now() - created
        if age < 0:
            # The clock was set back: so long as that is, nobody can wait.
            age = time.monotonic() - self._opened
        return age < provider.settle

    def now(self) -> float:
        """Return the time (epoch seconds) by the provider's clock."""
        return self.provider.now()

    def there(self, here: float) -> float:
        """Return what the provider's clock showed at a time of this machine's."""
        return here + self.provider.now() - time.time()

    def settled(self, box: str, place: str, since: float) -> Box | None:
        """
        Ask for a box until it is there, or so long after its create that it is not.

        Args:
            since: When it was made (epoch seconds, by the provider's clock).
        """
        found = self.provider.get(box, place)
        if found is None and self._may_lag(since):
            wait = self.provider.settle
            self.screen.note(
                f"{box} may have been made: looking for it, {wait:.0f} s at most"
            )
        while found is None and self._may_lag(since):
            time.sleep(max(self.provider.poll_interval, 0.2))
            found = self.provider.get(box, place)
        if found is not None:
            self._seen.add(box)
        return found

    def look_again(self) -> Box | None:
        """Ask the provider for the box anew."""
        self.forget_look()
        return self.box

    def forget_look(self) -> None:
        """Have the next look at the box, or at builders, ask the provider anew."""
        for name in ("box", "_machines"):
            self.__dict__.pop(name, None)

    def running_box(self) -> Box:
        """Return the box if it runs. Raises UsageError if there is none."""
        box = self.box
        if box is None:
            raise UsageError(
                f"there is no box {self.title}",
                running=self.siblings(),
                next="inv provision, or inv run",
            )
        if box.state not in ("running", "starting"):
            raise UsageError(
                f"{self.title} ({box.id}) is {box.state}; its disk is kept",
                next="inv fetch brings its outputs, inv teardown removes it",
            )
        return box

    def siblings(self) -> str:
        """Say which other boxes this project has, and what reaches each of them."""
        found = {}
        # They are a help; without an answer there is none.
        with suppress(OneboxError):
            for box in self.provider.find(self.owner):
                name, up = box.tags.name, box.state in ("running", "starting")
                if (
                    (box.tags.kind, box.tags.project) == ("box", self.project)
                    and name != self.settings.name
                    and box.state != "gone"
                ):
                    way = "inv logs" if up else "inv fetch teardown"
                    text = f"is {'up' if up else box.state}: {way} --name={name}"
                    found[name] = f"{self.settings.project}/{name} {text}"
        return "\n        ".join(found[name] for name in sorted(found))

    def ssh(self, box: Box | None = None) -> connection.SSHConnection:
        """Return the way to the box."""
        box = box or self.running_box()
        record = self.store.record
        if record.box == box.id and record.host_key not in ("", box.host_key):
            # The box was given another host key, and its tags may not know yet.
            box = replace(box, host_key=f"{box.host_key}\n{record.host_key}")
        if self._ssh is None or not self._ssh.leads_to(box):
            if self._ssh is not None:
                self._ssh.close()
            self._ssh = connection.SSHConnection(
                box,
                self.store.directory / "ssh",
                keys.identity(config_dir(self.environ)),
            )
        return self._ssh

    def resuming(
        self, step: Callable[[AgentChannel], Any], box: Box | None = None
    ) -> Any:
        """Do a step over the connection; after a break, again from where it was."""
        ssh = self.ssh(box)

        def broken(error: ConnectionLost, attempt: int) -> None:
            self.screen.note(
                f"connection lost ({error.message}); trying again ({attempt})"
            )
            self.still_there(ssh.box)

        return ssh.resuming(step, broken)

    def look_at(self, box: Box) -> Box:
        """Return a box that is starting as it is now. Raises Lost if it is gone."""
        now = self.provider.get(box.id, box.place)
        if now is not None and now.state in ("starting", "running"):
            self._seen.add(box.id)
            return now
        self.still_there(box)
        return box

    def still_there(self, box: Box) -> None:
        """Raise Lost if the box no longer runs: then waiting is of no use."""
        now = self.provider.get(box.id, box.place)
        pause, until = (
            max(self.provider.poll_interval, 0.2),
            time.monotonic() + STOPPING_SECONDS,
        )
        while now is not None and now.state == "stopping" and time.monotonic() < until:
            time.sleep(pause)
            now = self.provider.get(box.id, box.place)
        if now is None and self._may_lag(box.created):
            return
        if now is not None:
            self._seen.add(box.id)
        if now is not None and now.state in ("starting", "running"):
            self._let_in(now)
            return
        self.forget_look()
        state = "gone" if now is None else now.state
        why = f": {now.why}" if now is not None and now.why else ""
        text = f"{self.title} ({box.id}) is {state}{why}"
        next_ = "inv status" if now is None else "inv fetch brings what its disk holds"
        if now is not None and now.why == "preempted":
            raise Preempted(text, next=next_)
        raise Lost(text, next=next_)

    def _let_in(self, box: Box) -> None:
        """Have the box's firewall know this machine's address, if that is new."""
        if time.monotonic() - self._admitted < ADMIT_SECONDS:
            return
        self._admitted = time.monotonic()
        if self.provider.allow_my_ip(box):
            self.screen.note(
                "this machine's address has changed; the box now lets it in"
            )

    def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""
        if self._ssh is not None:
            self._ssh.close()

    def forget_connection(self) -> None:
        """Close the connection for good and remove its files."""
        if self._ssh is not None:
            self._ssh.forget()
            self._ssh = None

    # -- what the line wants ---------------------------------------------------

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Work on a copy of the line: a plan leaves nothing to settle."""
        line = self.line
        if not line.dry:
            self.line = line.supposed()
        try:
            yield
        finally:
            self.line = line

    @property
    def title(self) -> str:
        """Return project and name, as people see them."""
        return f"{self.settings.project}/{self.settings.name}"

    @property
    def local_dir(self) -> Path:
        """Return the project's own `.onebox`: logs and receipts of all jobs."""
        return self.root / ".onebox"

    def given(self, option: str) -> bool:
        """Tell whether an option was asked for by flag or variable."""
        source = self.settings.source(option)
        return source.startswith(("--", "ONEBOX_"))

    @property
    def memory(self) -> Path:
        """Return where fetches of this box name keep what they put here."""
        return self.local_dir / "fetched" / self.settings.name

    @property
    def usual_into(self) -> Path:
        """Return the folder that outputs are put in, unless --into names one."""
        template = self.settings.fetch.outputs_to or ""
        return self.root / template.replace("{name}", self.settings.name)

    def noted(self, folder: Path) -> str:
        """Return a folder as it is remembered: it moves with the project it is in."""
        inside = self.root in (folder, *folder.parents)
        return str(folder.relative_to(self.root) if inside else folder)

    @contextmanager
    def fetching_into(self, folder: str) -> Iterator[None]:
        """Have outputs put into another folder than the usual one, this time."""
        before = self.into
        if folder:
            self.into = Path(os.path.normpath(Path(folder).absolute()))
        try:
            yield
        finally:
            self.into = before

    def lock(self) -> None:
        """Keep other onebox commands off this box. Raises Busy."""
        self.store.lock(self.line.command)

    def box_ended(self, box: str) -> None:
        """Forget a box that is gone, if it is the one of the record."""
        if self.store.record.box == box:
            self.store.forget()

    def end_with_box(self) -> None:
        """Note that the line's box is gone: the next one is what onebox.toml says."""
        self.store.forget()
        self.ended += 1
        self.line.box_ended()
        self.forget_look()
        self.choose_provider()

    def choose_provider(self) -> None:
        """Return to the configured provider once nothing is left at another one."""
        before = self.provider_name
        if before == self.settings.provider:
            return
        del self.__dict__["provider_name"]
        if self.provider_name != before:
            # What was asked of the other provider holds for it alone.
            self.__dict__.pop("provider", None)
            self.offers.clear()
            self.images = None
            self.forget_look()

    def made(self, box: Box) -> None:
        """Note that this line has made the box, and what it therefore owes."""
        self.line.made_box = True
        self.made_again(box)

    def made_again(self, box: Box) -> None:
        """Note that the box has been started anew, perhaps under another address."""
        self.__dict__["box"] = box

    def called(self, name: str) -> BoxContext:
        """Return a session for another box of the same project."""
        settings = replace(self.settings, name=name)
        line = Invocation(self.line.command)
        return BoxContext(self.root, self.environ, settings, line, self.screen)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count what a stage takes, for the receipt."""
        began = time.monotonic()
        self.doing = stage
        try:
            yield
        finally:
            self.spent[stage] = self.spent.get(stage, 0) + time.monotonic() - began

    def remember(self, **changes: Any) -> Record:
        """Change what this machine remembers of the box."""
        return self.store.update(**changes)


def _project(root: Path, settings: Settings, state: Path) -> str:
    # Two checkouts in folders of one name are two projects, unless onebox.toml
    # gives them the same name on purpose.
    if settings.source("project") != "default":
        return settings.project
    return project_id.project_id(root, settings.project, state)
