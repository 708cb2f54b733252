"""The one command. Mounts the subcommands lazily: `lockstep --help` imports none of them."""

from __future__ import annotations

import importlib

import click

from lockstep.commands.ending import orderly

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("lockstep.commands.demo:demo", "The main job: train, export, verify, serve, classify, load-test, report."),
    "corpus": ("lockstep.commands.zoo:corpus", "Fetch the human-rated texts and split them."),
    "train": ("lockstep.commands.zoo:train", "Train the models of the zoo."),
    "export": ("lockstep.commands.export:export", "Export a trained model, verify it, publish it."),
    "import": ("lockstep.commands.export:import_group", "Verify an artifact that was made elsewhere, publish it."),
    "serve": ("lockstep.commands.serve:serve", "Serve a model repository over gRPC."),
    "classify": ("lockstep.commands.classify:classify", "Classify texts with a running server."),
    "batch": ("lockstep.commands.batch:batch", "Classify the texts of a whole file."),
    "load": ("lockstep.commands.load:load", "Have a running server serve a model's newest version."),
    "unload": ("lockstep.commands.load:unload", "Have a running server serve a model no more."),
    "models": ("lockstep.commands.models:models", "List the models of a running server, and how exact they are."),
    "latency": ("lockstep.commands.latency:latency", "Show where rows spend their time on a running server."),
    "loadtest": ("lockstep.commands.loadtest:loadtest", "Load-test the backends of a running server side by side."),
    "compare": ("lockstep.commands.compare:compare", "Did it get slower? Compare two load tests."),
    "report": ("lockstep.commands.report:report", "Write a report of what was measured."),
}
"""Name -> (`module:object`, the help line shown in the list)."""


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are run."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a subcommand, and end in order whatever ends it."""
        with orderly():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names in the order of the job."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a subcommand."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lockstep")
def main() -> None:
    """Lockstep: the same answer from every backend, however it was batched, at a latency you can see."""
