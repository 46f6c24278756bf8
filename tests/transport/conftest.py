"""The box that the agent's own tests have, for what talks to it."""

from __future__ import annotations

from ..agent.conftest import AgentBox, agent_box

__all__ = ["AgentBox", "agent_box"]
