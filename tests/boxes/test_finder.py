"""The boxes of a project, as the provider lists them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from invoke.exceptions import Exit

from onebox.context import BoxContext
from onebox.errors import ProviderError
from onebox.exit_code import exit_code
from onebox.invocation import Invocation
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from onebox.providers.values import Box
from onebox.store.paths import local_root
from tests.conftest import Project


class Unanswered(Local):
    """A provider that answers no call; it counts the attempts to list boxes."""

    attempts = 0

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Fail, as a cloud without a network does after some time."""
        self.attempts += 1
        raise ProviderError("the network is down")


def test_error_of_a_provider_that_does_not_answer_is_printed_without_asking_again(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    """The box of the record is named instead."""
    context = BoxContext.open(
        str(project.root), project.environ, {}, Invocation("inv", ())
    )
    context.store.update(box="ob-first")
    provider = Unanswered(LocalSettings(), local_root(project.environ))
    context.use_provider(provider)
    with pytest.raises(Exit), exit_code(context, project.environ, {}):
        context.find_box()

    assert 1 == provider.attempts
    printed = capfd.readouterr().err
    assert "the network is down" in printed
    assert "ob-first may still be up" in printed
