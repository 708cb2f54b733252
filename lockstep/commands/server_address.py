"""The type of options that name a server, or several by commas."""

from __future__ import annotations

from typing import Any

import click


class ServerAddress(click.ParamType[str]):
    """`host:port`, `host`, `unix:/path`; several, separated by commas, are servers of the same models."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check an address as the client reads it, and return it as it was written."""
        from lockstep.clients.address import targets_of

        try:
            targets_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)
