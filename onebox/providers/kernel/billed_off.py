"""
Let the user choose what ends the billing, in clouds that bill powered-off machines.

In such a cloud it is not enough that a box powers itself off at its deadline. Either
the box deletes itself (see `self_destroy`), or the user accepts that only a teardown or
`inv cleanup` ends the billing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onebox.errors import ConfigError
from onebox.providers.kernel.cloud_settings import CloudSettings
from onebox.providers.values import Check
from onebox.settings.checks import is_variable
from onebox.settings.fields import setting
from onebox.settings.kinds import BOOLEAN, STRING


@dataclass(frozen=True)
class BilledOffSettings(CloudSettings):
    """
    The settings of a cloud that bills powered-off machines.

    *destroy_token* names an environment variable, which holds the token by which a box
    deletes itself. A project cannot name it: the value is sent to the box, so a cloned
    project could take any variable of the user.
    """

    accept_no_watchdog: bool = setting(
        BOOLEAN,
        False,
        "true",
        "Accept that a box is billed until a teardown or cleanup.",
    )
    destroy_token: str = setting(
        STRING,
        "",
        '"BOX_TOKEN"',
        "Variable with a token that deletes boxes; not from a project's file.",
        is_variable,
        blank=True,
        of_user=True,
    )


@dataclass(frozen=True)
class BilledOff:
    """
    The words of one cloud for messages about powered-off machines.

    Attributes:
        cloud: The name of the cloud in sentences.

        table: The name of the cloud's table in onebox.toml.

        machine: The cloud's word for a machine, such as "a droplet".

        main_token: The environment variable with onebox's own token.

        rights: The permissions that the token of a box should have.
    """

    cloud: str
    table: str
    machine: str
    main_token: str
    rights: str

    def token(
        self, settings: BilledOffSettings, environ: Mapping[str, str], api_token: str
    ) -> str:
        """
        Return the token by which boxes delete themselves, "" if the user chose none.

        Args:
            api_token: The token that onebox itself uses; a box must get a different
                one.

        Raises:
            ConfigError: Nothing would end the billing of a box, or the token is missing
                or the same as *api_token*.
        """
        name = settings.destroy_token
        if not name:
            if settings.accept_no_watchdog:
                return ""
            raise ConfigError(
                f"{self.cloud} bills {self.machine} that is powered off in full, so a "
                "box costs money after its deadline, until it is torn down",
                next=f"[{self.table}] destroy_token, in ~/.config/onebox/config.toml = "
                "the name of a variable with a token for boxes to delete themselves, "
                "or accept_no_watchdog = true and inv cleanup --print-cron",
            )
        token = environ.get(name, "").strip()
        if not token:
            raise ConfigError(
                f"[{self.table}] destroy_token names {name}, which is not set",
                next=f"set {name} to a token with {self.rights}",
            )
        if token == api_token:
            raise ConfigError(
                f"{name} holds the same token as {self.main_token}, which would put "
                "all of its rights on the box",
                next=f"create another one, with {self.rights}",
            )
        return token

    def note(self, settings: BilledOffSettings) -> str:
        """Return a note that tells the user what happens at a box's deadline."""
        if settings.destroy_token:
            return "at its deadline the box deletes itself, with everything on its disk"
        return (
            "at its deadline the box only powers itself off, and is still billed until "
            "inv teardown or inv cleanup deletes it (inv cleanup --print-cron)"
        )

    def stopped_note(self, price: float | None) -> str:
        """Return a note that a powered-off box is billed; *price* is in USD an hour."""
        cost = "in full" if price is None else f"in full, ${price:.2f}/h"
        return f"{self.machine} that is powered off is billed {cost}"

    def check(
        self, settings: BilledOffSettings, environ: Mapping[str, str], api_token: str
    ) -> Check:
        """Return the line of `inv doctor` that tells what ends the billing of a box."""
        if self.token(settings, environ, api_token):
            detail = f"boxes delete themselves, with {settings.destroy_token}"
            return Check("deadline", True, detail)
        detail = "a box that is powered off is still billed, until inv cleanup"
        return Check("deadline", None, detail, "inv cleanup --print-cron")
