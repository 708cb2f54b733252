"""`python -m lockstep`."""

from lockstep.module_path import leave_current_folder_out

leave_current_folder_out(run_as_module=True)

from lockstep.cli import run  # noqa: E402 - from the path as it is now

run()
