"""
The choice that a user makes where a machine that is powered off is billed in full.

Powering off at the deadline is not enough there. Either the box deletes itself (see
`self_destroy`), or the user accepts that only a teardown or `inv sweep` ends the bill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from onebox.errors import ConfigError
from onebox.providers.values import Check
from onebox.settings.checks import is_variable
from onebox.settings.fields import setting
from onebox.settings.kinds import BOOLEAN, STRING


def accept_no_watchdog() -> Any:
    """Return the field by which a user accepts the costs of a powered-off box."""
    help = "Accept that a box is billed until a teardown or sweep."
    return setting(BOOLEAN, False, "true", help)


def destroy_token(example: str) -> Any:
    """Return the field for the variable with the token of `self_destroy`."""
    help = "Variable with a token that deletes boxes; no sudo for jobs."
    return setting(STRING, "", example, help, is_variable, blank=True)


class Settings(Protocol):
    """The settings of a cloud that bills powered-off machines."""

    @property
    def accept_no_watchdog(self) -> bool:
        """Whether the user accepts the costs of a powered-off box."""

    @property
    def destroy_token(self) -> str:
        """The name of the variable with the token, "" if there is none."""


@dataclass(frozen=True)
class BilledOff:
    """
    The words of one cloud for this choice.

    Attributes:
        cloud: Its name in sentences.

        table: Its table in onebox.toml.

        machine: What it calls a machine, such as "a droplet".

        main_token: The variable with the token for all other calls.

        rights: The rights that a token for boxes should have.
    """

    cloud: str
    table: str
    machine: str
    main_token: str
    rights: str

    def token(
        self, settings: Settings, environ: Mapping[str, str], api_token: str
    ) -> str:
        """
        Return the token by which boxes delete themselves, "" if the user does without.

        Args:
            api_token: The token for all other calls.

        Raises:
            ConfigError: Nothing would end the billing, or the token cannot be used.
        """
        name = settings.destroy_token
        if not name:
            if settings.accept_no_watchdog:
                return ""
            raise ConfigError(
                f"{self.cloud} bills {self.machine} that is powered off in full, so a "
                "box costs money after its deadline, until it is torn down",
                next=f"[{self.table}] destroy_token = the name of a variable with a "
                "token for boxes to delete themselves, or accept_no_watchdog = true "
                "and inv sweep --print-cron",
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

    def note(self, settings: Settings) -> str:
        """Return the note that each box gets about its deadline."""
        if settings.destroy_token:
            return "at its deadline the box deletes itself, with everything on its disk"
        return (
            "at its deadline the box only powers itself off, and is still billed until "
            "inv teardown or inv sweep deletes it (inv sweep --print-cron)"
        )

    def stopped_note(self, price: float | None) -> str:
        """Return the note of a box that is off, by its price an hour."""
        cost = "in full" if price is None else f"in full, ${price:.2f}/h"
        return f"{self.machine} that is powered off is billed {cost}"

    def check(
        self, settings: Settings, environ: Mapping[str, str], api_token: str
    ) -> Check:
        """Return the doctor's line about what ends the billing."""
        if self.token(settings, environ, api_token):
            detail = f"boxes delete themselves, with {settings.destroy_token}"
            return Check("deadline", True, detail)
        detail = "a box that is powered off is still billed, until inv sweep"
        return Check("deadline", None, detail, "inv sweep --print-cron")
