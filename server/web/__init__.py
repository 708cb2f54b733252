"""The HTTP port: the page for people, its calls, and what machines ask."""

from server.web.application import application
from server.web.calls import Calls

__all__ = ["Calls", "application"]
