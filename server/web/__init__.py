"""The HTTP port: the page for people, its calls, and what machines ask."""

from lockstep.server.web.application import application
from lockstep.server.web.calls import Calls

__all__ = ["Calls", "application"]
