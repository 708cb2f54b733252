"""The one command. Mounts the subcommands lazily: `lockstep --help` imports none of them."""

from __future__ import annotations

from lockstep.module_path import leave_current_folder_out

leave_current_folder_out()

import importlib  # noqa: E402 - this and the rest from the path as it is now
import sys  # noqa: E402
from dataclasses import dataclass  # noqa: E402

import click  # noqa: E402

from lockstep import standard_streams  # noqa: E402
from lockstep.commands.exit_codes import orderly  # noqa: E402


@dataclass(frozen=True, slots=True)
class Subcommand:
    """Where a subcommand is, what it does in one line, and which extras of the package it needs."""

    target: str  # `module:object`
    help: str
    extras: str = ""  # comma-separated; none: the base install is enough


COMMANDS: dict[str, Subcommand] = {
    "demo": Subcommand(
        "lockstep.commands.demo:demo", "The main job: train, export, verify, serve, classify, load-test, report.", "all"
    ),
    "corpus": Subcommand("lockstep.commands.zoo:corpus", "Fetch the human-rated texts and split them.", "train"),
    "train": Subcommand("lockstep.commands.zoo:train", "Train the models of the zoo.", "train"),
    "export": Subcommand(
        "lockstep.commands.export:export", "Export a trained model, verify it, publish it.", "export,server"
    ),
    "import": Subcommand(
        "lockstep.commands.export:import_group",
        "Verify an artifact that was made elsewhere, publish it.",
        "export,server",
    ),
    "serve": Subcommand("lockstep.commands.serve:serve", "Serve a model repository over gRPC.", "server"),
    "classify": Subcommand("lockstep.commands.classify:classify", "Classify texts with a running server."),
    "batch": Subcommand("lockstep.commands.batch:batch", "Classify the texts of a whole file.", "batch"),
    "load": Subcommand("lockstep.commands.load:load", "Have a running server serve a model's newest version."),
    "unload": Subcommand("lockstep.commands.load:unload", "Have a running server serve a model no more."),
    "models": Subcommand(
        "lockstep.commands.models:models", "List the models of a running server, and their parity with the source."
    ),
    "latency": Subcommand("lockstep.commands.latency:latency", "Show where rows spend their time on a running server."),
    "loadtest": Subcommand(
        "lockstep.commands.loadtest:loadtest", "Load-test the backends of a running server side by side.", "loadtest"
    ),
    "compare": Subcommand(
        "lockstep.commands.compare:compare", "Did it get slower? Compare two load tests.", "loadtest"
    ),
    "report": Subcommand("lockstep.commands.report:report", "Write a report of what was measured.", "all"),
}


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are run."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a subcommand, and end in order whatever ends it."""
        with orderly():
            try:
                return super().invoke(ctx)
            except ModuleNotFoundError as error:
                missing = _missing_extras(ctx.invoked_subcommand, error)
                if missing is None:
                    raise
                raise click.UsageError(missing) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names in the order of the job."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a subcommand."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


def _missing_extras(name: str | None, error: ModuleNotFoundError) -> str | None:
    """Return what to install where a subcommand lacks a module that its extras bring; None where that is not why."""
    extras = COMMANDS[name].extras if name in COMMANDS else ""
    module = (error.name or "").partition(".")[0]
    if not extras or module in ("", "lockstep"):
        return None
    return f"lockstep {name} needs {module}, which is not installed: pip install 'lockstep[{extras}]'"


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lockstep")
def main() -> None:
    """Lockstep: the same answer from every backend, however it was batched, at a latency you can see."""


def run() -> None:
    """Run the command of this process."""
    standard_streams.prepare()
    try:
        with orderly():  # of what click writes itself, too: --help and --version
            main()
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
