"""The files of a load test: whole or not there, and never in place of a device or a link."""

from __future__ import annotations

from lockstep.clients.output_files import check_writable, write_whole

__all__ = ["check_writable", "write_whole"]
