"""The HTTP port: the page for people, its calls, and what machines ask."""

from server.web.application import application

__all__ = ["application"]
