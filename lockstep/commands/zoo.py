"""`lockstep corpus` and `lockstep train`: the zoo from the command line.

Owns the words and the tables. What they do is in the `zoo` package, imported when a command runs, so that
`--help` needs none of it.
"""

from __future__ import annotations

from pathlib import Path

import click

cache_option = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache"),
    show_default=True,
    help="Folder that keeps the corpus, the tokenizer and the trained models.",
)


@click.command()
@cache_option
def corpus(cache: Path) -> None:
    """Fetch the corpus: real sentences rated by people, as JSON lines.

    \b
    Writes CACHE/corpus/{train,validation,test}.jsonl, one text a line:
      {"id", "text", "label": 0 or 1, "kind": "sentence" or "document", "source"}

    The text comes from a source distribution that pip fetches from its configured index, once, and that is
    compared with its SHA-256. A corpus that is there already is left as it is.
    """  # noqa: D301 (click's mark of a verbatim paragraph is the character itself)
    from lockstep.zoo.corpus import SPLITS, CorpusError, fetch

    try:
        made = fetch(cache / "corpus")
    except CorpusError as error:
        raise click.ClickException(str(error)) from error
    for split in SPLITS:
        click.echo(f"{made.examples[split]:6d} texts  {made.path(split)}")


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@cache_option
def train(ids: tuple[str, ...], cache: Path) -> None:
    """Train models of the zoo: those named by ID, or all of them.

    \b
    Writes CACHE/zoo/ID/: the weights, description.json (what `lockstep export`
    reads), tokenizer.json and training.json (what was reached).
    TensorBoard shows the curves: tensorboard --logdir CACHE/tensorboard

    Fetches the corpus first if it is not there, and the checkpoint of a model that starts from one. A model
    that is up to date is not trained again. Ctrl-C leaves nothing half-written: the models that were
    finished are kept.
    """  # noqa: D301
    from rich.table import Table

    from lockstep.commands import consoles
    from lockstep.zoo.corpus import CorpusError
    from lockstep.zoo.pretrained import PretrainedError
    from lockstep.zoo.registry import UnknownModel
    from lockstep.zoo.train import TrainingFailed, train_all

    try:
        trained = train_all(ids, cache)
    except UnknownModel as error:
        raise click.BadParameter(str(error), param_hint="ID") from error
    except (CorpusError, PretrainedError, TrainingFailed) as error:
        raise click.ClickException(str(error)) from error
    table = Table("model", "layer", box=None)
    for heading in ("sentences", "documents", "lines", "trained in"):
        table.add_column(heading, justify="right")
    for model in trained:
        record = model.record
        table.add_row(
            model.id,
            record.layer,
            f"{record.accuracy_sentences:.1%}",
            f"{record.accuracy_documents:.1%}",
            str(record.lines_of_code),
            "cached" if model.cached else f"{record.train_s:.0f} s",
        )
    consoles.answers().print(table)
    click.echo(
        "Accuracies are on held-out texts; lines are those of code, for the model and its training.\n"
        f"The models are in {cache / 'zoo'}."
    )
