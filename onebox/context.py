"""Open everything a stage needs to work on one box, such as store and connection."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onebox import providers, subprocess_env
from onebox.boxes import busy, other_providers
from onebox.boxes.finder import BoxFinder
from onebox.chain_state import ChainState
from onebox.errors import Busy, ConnectionLost
from onebox.invocation import JOB_STAGES, Invocation
from onebox.providers.base import Provider
from onebox.providers.values import Box, Image, Offer
from onebox.python_hints import hints_for
from onebox.remote import connection, keys, ssh_hosts
from onebox.remote.channel import AgentChannel
from onebox.settings import USER_FILE, Places, Settings, json_schema
from onebox.settings import load as load_settings
from onebox.settings.project import project_of
from onebox.store.atomic_files import refuse_foreign, refuse_links
from onebox.store.box_store import BoxStore
from onebox.store.identity import owner
from onebox.store.paths import config_dir, local_root, state_dir
from onebox.ui.screen import Screen


@dataclass
class ProviderCache:
    """
    The provider's answers to this command, which are not requested again.

    Attributes:
        offers: The offers for the box, by the id of the image that it would boot; the
            id is "" without an image. The key "builder" has the offers for a builder.

        images: The owner's images; None until they are listed.
    """

    offers: dict[str, list[Offer]] = field(default_factory=dict)
    images: list[Image] | None = None


class BoxContext:
    """
    Everything that a stage needs to work on one box.

    The first stage of a command line opens the context; later stages share it.

    Attributes:
        root: The project folder.

        settings: The checked values of onebox.toml, variables and flags.

        invocation: What the command line asks for.

        chain: What the stages of the command line have done so far.

        screen: Where messages and output are printed.

        owner, project: The ids of the user and the project, which are in the tags of
            every cloud object.

        store: The state of the box on this machine.

        cache: The provider's answers to this command.

        outputs_folder: The folder that outputs are fetched into.

        alias: The box's name for the user's own ssh.
    """

    def __init__(
        self,
        root: Path,
        environ: Mapping[str, str],
        settings: Settings,
        invocation: Invocation,
        screen: Screen,
    ) -> None:
        self.root = root
        self.environ = environ
        self.settings = settings
        self.invocation = invocation
        self.screen = screen
        self.owner = owner(config_dir(environ))
        subprocess_env.hide([*settings.run.secrets, "ONEBOX_NOTIFY_URL"])
        self.project = project_of(root, settings, state_dir(environ))
        self.store = BoxStore(
            state_dir(environ) / "projects" / self.project / settings.name, screen.warn
        )
        self.chain = ChainState(fetched_folder=root)
        self.cache = ProviderCache()
        self.outputs_folder = self.default_outputs_folder
        self._provider_name: str | None = None
        self._provider: Provider | None = None
        self._boxes: BoxFinder | None = None
        self._ssh: connection.SSHConnection | None = None
        name = "" if settings.name == "main" else f"-{settings.name}"
        names = f"onebox-{settings.project}{name}", f"onebox-{self.project}{name}"
        self.alias = ssh_hosts.Alias(self._ssh_folder, names, state_dir(environ))

    @classmethod
    def open(
        cls,
        root: str,
        environ: Mapping[str, str],
        flags: Mapping[str, object],
        invocation: Invocation,
        tasks: Mapping[str, str] | None = None,
        places: Places | None = None,
        output: Callable[[bytes], None] | None = None,
    ) -> BoxContext:
        """
        Read the settings and return the context.

        Args:
            tasks: What the user must type for each onebox task, such as "box.run", by
                the task's own name, such as "run".

            places: Where settings are, beside onebox.toml, variables and flags. The
                user's own file is added to them.

            output: Called with each part of the job's output; None means stdout.

        Raises:
            ConfigError: onebox.toml or a variable is wrong.
        """
        user_file = config_dir(environ) / USER_FILE
        places = replace(places or Places(), user_file=user_file)
        settings = load_settings(Path(root), environ, flags, places)
        json_schema.refresh(Path(root))
        # Commands in our hints need --name only if the box name comes from a flag or
        # variable. Otherwise onebox.toml or the default gives these commands the name.
        named = settings.overrides_file("name")
        hints = hints_for(invocation, tasks or {}, settings.name if named else "")
        screen = Screen(environ, hints, output)
        return cls(Path(root), environ, settings, invocation, screen)

    # -- provider and boxes ----------------------------------------------------

    @property
    def provider_name(self) -> str:
        """Return the name of the provider in use; see `other_providers.choose`."""
        if self._provider_name is None:
            self._provider_name = other_providers.choose(self)
        return self._provider_name

    @property
    def provider(self) -> Provider:
        """Return the provider in use; its SDK is loaded at the first call."""
        if self._provider is None:
            self._provider = self.load_provider(self.provider_name)
            self._provider.log_in()
        return self._provider

    def use_provider(self, provider: Provider) -> None:
        """Use *provider* from now on; forget the answers of the previous provider."""
        self._drop_provider()
        self._provider = provider

    def load_provider(self, name: str) -> Provider:
        """
        Return the provider *name*, configured by its table in onebox.toml.

        Raises:
            UsageError: A newer version of onebox has recorded a provider that this
                version does not have.
        """
        table = self.settings.providers[providers.row_of(name).name]
        return providers.load(name, table, local_root(self.environ))

    def choose_provider(self) -> None:
        """
        Choose the provider again, because a box may be gone.

        If no box is left at the present provider, it is the configured provider.
        """
        before = self.provider_name
        if before == self.settings.provider:
            return
        self._provider_name = None
        if self.provider_name != before:
            self._drop_provider()

    def _drop_provider(self) -> None:
        self._provider = self._boxes = None
        self.cache.offers.clear()
        self.cache.images = None

    @property
    def boxes(self) -> BoxFinder:
        """Return the object that finds the boxes of this name in this project."""
        if self._boxes is None:
            self._boxes = BoxFinder(self)
        return self._boxes

    @property
    def looked_for_box(self) -> bool:
        """Return whether a stage has asked the provider for the box."""
        return self._boxes is not None

    def find_box(self) -> Box | None:
        """Return the current box, None if there is none; the first call lists boxes."""
        return self.boxes.find_current()

    def now(self) -> float:
        """Return the time by the provider's clock (epoch seconds)."""
        return self.provider.now()

    # -- connection ------------------------------------------------------------

    def ssh(self, box: Box | None = None) -> connection.SSHConnection:
        """Return the connection to a box; None means the current box."""
        box = box or self.boxes.running()
        record = self.store.record
        if record.box == box.id and record.host_key not in ("", box.host_key):
            # A new host key was recorded, but *box* may have the old key from the box's
            # tags. The box may use either key, so both are accepted.
            box = replace(box, host_key=f"{box.host_key}\n{record.host_key}")
        key = keys.ssh_key_file(config_dir(self.environ))
        if self._ssh is None or not self._ssh.is_for(box):
            if self._ssh is not None:
                self._ssh.close()
            self._ssh = connection.SSHConnection(box, self._ssh_folder, key)
        if record.box == box.id and not box.user_ssh and not box.is_folder:
            self.alias.lead_to(box, key)
        return self._ssh

    @property
    def _ssh_folder(self) -> Path:
        return self.store.directory / "ssh"

    def call_resuming(
        self, step: Callable[[AgentChannel], Any], box: Box | None = None
    ) -> Any:
        """
        Call *step* with a channel to the box's agent, and return its result.

        If the connection breaks, *step* is called again.
        """
        ssh = self.ssh(box)

        def reconnecting(error: ConnectionLost, attempt: int) -> None:
            self.screen.note(
                f"connection lost ({error.message}); trying again ({attempt})"
            )
            self.boxes.check_runs(ssh.box)

        return ssh.call_resuming(step, reconnecting)

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        if self._ssh is not None:
            self._ssh.close()

    def forget_connection(self) -> None:
        """Close the connection and remove its files."""
        if self._ssh is not None:
            self._ssh.forget()
            self._ssh = None

    # -- names and folders -----------------------------------------------------

    @property
    def title(self) -> str:
        """Return the project and the name of the box, as messages show them."""
        return self.title_of(self.settings.name)

    def title_of(self, name: str) -> str:
        """Return the title of the box in this project whose name is *name*."""
        return f"{self.settings.project}/{name}"

    @functools.cached_property
    def local_dir(self) -> Path:
        """
        Return the `.onebox` folder of the project: logs and receipts of jobs.

        Raises:
            StateError: It, or a folder of onebox in it, is a link, or it is a file, or
                it belongs to another user. A project that was cloned may bring such
                links, which lead to any place.
        """
        folder = self.root / ".onebox"
        refuse_foreign(folder)
        refuse_links(folder, depth=3)
        return folder

    def job_dir(self, job_id: str) -> Path:
        """Return the folder in which this machine keeps a job's log and receipt."""
        return self.local_dir / "jobs" / job_id

    @property
    def fetch_memory(self) -> Path:
        """Return the folder that records which files were fetched for this box name."""
        return self.local_dir / "fetched" / self.settings.name

    @property
    def default_outputs_folder(self) -> Path:
        """Return the folder that outputs are fetched into if --into is not given."""
        template = self.settings.fetch.outputs_to or ""
        return self.root / template.replace("{name}", self.settings.name)

    @property
    def outputs_folder_for_record(self) -> str:
        """
        Return the text of `outputs_folder` for the record.

        The path is relative to the project folder if it is inside this folder.
        """
        folder = self.outputs_folder
        inside = self.root in (folder, *folder.parents)
        return str(folder.relative_to(self.root) if inside else folder)

    @property
    def job_outputs_folder(self) -> Path:
        """
        Return the folder for the latest job's outputs.

        It is the folder that `run --into` named, or else the default folder.
        """
        named = self.store.record.job_outputs_folder
        return self.root / named if named else self.default_outputs_folder

    @contextmanager
    def using_outputs_folder(self, folder: Path | str) -> Iterator[None]:
        """
        Set the folder that outputs are fetched into while the body runs.

        Args:
            folder: The path that `job_outputs_folder` returns, or the text of `--into`.
                The text is relative to the working directory; "" changes nothing.
        """
        before = self.outputs_folder
        if isinstance(folder, Path):
            self.outputs_folder = folder
        elif folder:
            self.outputs_folder = Path(os.path.normpath(Path(folder).absolute()))
        try:
            yield
        finally:
            self.outputs_folder = before

    # -- command line ----------------------------------------------------------

    def lock(self) -> None:
        """Lock the box against other onebox commands. Raises Busy."""
        try:
            self.store.lock(self.invocation.command, self.title)
        except Busy as error:
            error.next = self.next_if_busy
            raise

    @property
    def next_if_busy(self) -> str:
        """Return what the user can type if another command or a job uses the box."""
        holder = None if self.store.locked else self.store.holder()
        return busy.next_steps(
            holder,
            starts_job=self.invocation.job_requested,
            only=self.invocation.only and self.invocation.task in JOB_STAGES,
            task="map" if self.invocation.task == "map" else "run",
        )

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Use a copy of the invocation in the body, because a plan owes no teardown."""
        invocation = self.invocation
        if not invocation.dry:
            self.invocation = replace(invocation, dry=True)
        try:
            yield
        finally:
            self.invocation = invocation

    def end_with_box(self) -> None:
        """Forget the removed box, and use the configured provider for the next one."""
        self.store.forget()
        self.chain.ended_boxes += 1
        self.invocation.box_ended()
        self.boxes.invalidate()
        self.choose_provider()

    def with_name(self, name: str) -> BoxContext:
        """Return a context for the box of this project whose name is *name*."""
        settings = replace(self.settings, name=name)
        invocation = Invocation(self.invocation.command)
        return BoxContext(self.root, self.environ, settings, invocation, self.screen)
