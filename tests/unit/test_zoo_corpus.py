"""The corpus, made from a small archive of the same form as the real one."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.zoo import corpus as module
from lockstep.zoo.corpus import (
    SPLITS,
    TABLES,
    CorpusError,
    DownloadFailed,
    MalformedCorpus,
    Origin,
    Parameters,
    Rated,
    Table,
    WrongChecksum,
    divide,
    fetch,
    open_corpus,
    parse,
    pip_download,
    same_text,
)

MOVIE, AMAZON, TWEET, NYT = TABLES
ARCHIVE = "small-1.0/resources/ratings.tar.gz"

CONTENT = {
    MOVIE.member: "1\t2.5\tA café of a film.\r\n2\t-1.5\tDull.\r\n3\t0.4\tIt is a film.\r\n".encode(),
    AMAZON.member: b"1_1\t-0.9\tbroke at once.\r\n1_2\t-0.1\ti sent it back.\r\n1_3\t-2\tnever again.\r\n",
    TWEET.member: b"1\t3\tLMAO, AMAZING!\r\n",
    NYT.member: b"1_1\t1\tGood.\r\n1_3\t1.2\tBetter.\r\n1_4\t0.2\tFair.\r\n",
}


def tar(members: Mapping[str, bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return held.getvalue()


class Release:
    """A source distribution that is not on any index; counts how often it is fetched."""

    def __init__(self, content: Mapping[str, bytes] = CONTENT) -> None:
        self.bytes = tar({ARCHIVE: tar(content)})
        self.origin = Origin("small", "1.0", hashlib.sha256(self.bytes).hexdigest(), ARCHIVE)
        self.fetched = 0

    def download(self, origin: Origin, folder: Path) -> Path:
        self.fetched += 1
        path = folder / origin.file_name
        path.write_bytes(self.bytes)
        return path

    def fetch(self, cache: Path, parameters: Parameters | None = None) -> module.Corpus:
        return fetch(cache, origin=self.origin, parameters=parameters, download=self.download)


def everything(corpus: module.Corpus) -> dict[str, module.Example]:
    return {example.id: example for split in SPLITS for example in corpus.read(split)}


def test_labels_follow_the_threshold(tmp_path: Path) -> None:
    found = everything(Release().fetch(tmp_path / "corpus"))
    labels = {name: example.label for name, example in found.items() if example.kind == "sentence"}
    assert labels == {
        "movie-1": 1,
        "movie-2": 0,
        "amazon-1_1": 0,
        "amazon-1_3": 0,
        "tweet-1": 1,
        "nyt-1_1": 1,
        "nyt-1_3": 1,
    }


def test_documents_are_consecutive_and_labelled_by_their_mean(tmp_path: Path) -> None:
    found = everything(Release().fetch(tmp_path / "corpus"))
    whole = found["amazon-1_1..3"]
    assert whole.text == "broke at once. i sent it back. never again."
    assert (whole.label, whole.kind, whole.source) == (0, "document", "amazon")
    assert found["nyt-1_3..4"].text == "Better. Fair."  # nyt-1_2 is missing: nothing joins across it
    assert not any(name.startswith("nyt-1_1..") for name in found)


def test_text_is_read_as_utf_8(tmp_path: Path) -> None:
    assert everything(Release().fetch(tmp_path / "corpus"))["movie-1"].text == "A café of a film."


def test_counts_and_lines_agree(tmp_path: Path) -> None:
    corpus = Release().fetch(tmp_path / "corpus")
    for split in SPLITS:
        lines = corpus.path(split).read_text(encoding="utf-8").splitlines()
        assert len(lines) == corpus.examples[split]
        assert all(set(json.loads(line)) == {"id", "text", "label", "kind", "source"} for line in lines)


def test_second_fetch_reads_what_the_first_made(tmp_path: Path) -> None:
    release = Release()
    first = release.fetch(tmp_path / "corpus")
    before = first.path("train").stat().st_ino
    second = release.fetch(tmp_path / "corpus")
    assert (first, before) == (second, second.path("train").stat().st_ino)
    assert release.fetched == 1
    assert open_corpus(tmp_path / "corpus") == first


def test_other_parameters_make_it_anew_without_the_network(tmp_path: Path) -> None:
    release = Release()
    release.fetch(tmp_path / "corpus")
    strict = release.fetch(tmp_path / "corpus", Parameters(threshold=2.0))
    assert {"movie-1", "amazon-1_3", "tweet-1"} == set(everything(strict))
    assert release.fetched == 1


def test_wrong_checksum_names_both_and_leaves_nothing(tmp_path: Path) -> None:
    release = Release()
    good, release.bytes = release.origin.sha256, release.bytes + b"\0"
    with pytest.raises(WrongChecksum) as caught:
        release.fetch(tmp_path / "corpus")
    assert f"expected sha256 {good}" in str(caught.value)
    assert f"got      sha256 {hashlib.sha256(release.bytes).hexdigest()}" in str(caught.value)
    assert not (tmp_path / "corpus").exists()
    assert [path.name for path in tmp_path.iterdir()] == [".corpus.lock"]


def test_failure_keeps_the_corpus_of_before(tmp_path: Path) -> None:
    corpus = Release().fetch(tmp_path / "corpus")
    broken = Release({**CONTENT, TWEET.member: b"1\tten\tWhat?\r\n"})
    (tmp_path / "corpus" / "small-1.0.tar.gz").unlink()
    with pytest.raises(MalformedCorpus):
        broken.fetch(tmp_path / "corpus")
    assert open_corpus(tmp_path / "corpus") == corpus


def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(origin: Origin, folder: Path) -> Path:
        (folder / "half").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path / "corpus", origin=Release().origin, download=interrupted)
    assert [path.name for path in tmp_path.iterdir()] == [".corpus.lock"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"7_1\t1.0", "2 columns"),
        (b"7_1\t1.0\tGood.\tBad.", "4 columns"),
        (b"7_1\tnice\tGood.", "'nice' is not a number"),
        (b"7_1\tnan\tGood.", "outside -4 to 4"),
        (b"7_1\t4.5\tGood.", "outside -4 to 4"),
        (b"7\t1.0\tGood.", "the id '7'"),
        (b"7_1\t1.0\t ", "text is empty"),
        (b"7_1\t1.0\tcaf\xe9", "not UTF-8"),  # latin-1
    ],
)
def test_malformed_line_is_named(line: bytes, complaint: str) -> None:
    with pytest.raises(MalformedCorpus, match=complaint) as caught:
        list(parse(b"1_1\t0.5\tFine.\r\n\r\n" + line + b"\r\n", NYT))
    assert f"{NYT.member}, line 3: " in str(caught.value)


def test_archive_without_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedCorpus, match="holds no hutto"):
        Release({MOVIE.member: CONTENT[MOVIE.member]}).fetch(tmp_path / "corpus")


def test_absent_corpus_is_an_error_that_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="lockstep corpus"):
        open_corpus(tmp_path)


def ended(status: int, stderr: str = "", leaves: str | None = None) -> Callable[..., object]:
    """Stand in for pip: end with `status`, having said `stderr` and left the file `leaves`."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if leaves is not None:
            (Path(command[command.index("--dest") + 1]) / leaves).write_bytes(b"")
        return subprocess.CompletedProcess(command, status, "", stderr)

    return run


def test_pip_without_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", ended(1, "ERROR: No matching distribution found"))
    with pytest.raises(DownloadFailed, match=r"No matching distribution(.|\n)*by hand"):
        pip_download(Origin(), tmp_path)


def test_pip_refusing_a_hash_is_a_wrong_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"DO NOT MATCH THE HASHES\n  Expected sha256 {'a' * 64}\n       Got        {'b' * 64}\n"
    monkeypatch.setattr(subprocess, "run", ended(1, said))
    with pytest.raises(WrongChecksum) as caught:
        pip_download(Origin(), tmp_path)
    assert (caught.value.expected, caught.value.got) == (Origin().sha256, "b" * 64)


def test_pip_checks_the_hash_before_it_reads_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = Origin()
    monkeypatch.setattr(subprocess, "run", ended(0, leaves=origin.file_name))
    assert pip_download(origin, tmp_path) == tmp_path / origin.file_name
    assert f"--hash=sha256:{origin.sha256}" in (tmp_path / "requirements.txt").read_text()


WORDS = st.sampled_from(["good", "Good!", "bad", "so so", "fine", "worse", "...", "!"])
WORKS = st.lists(
    st.tuples(st.sampled_from(TABLES), st.lists(st.tuples(WORDS, st.floats(-4, 4)), min_size=1, max_size=6)),
    min_size=1,
    max_size=30,
)


@given(WORKS, st.integers(0, 5))
def test_no_text_and_no_work_is_on_two_sides(works: list[tuple[Table, list[tuple[str, float]]]], seed: int) -> None:
    sentences = [
        Rated(table.source, str(number), place, rating, text)
        for number, (table, texts) in enumerate(works)
        for place, (text, rating) in enumerate(texts, start=1)
    ]
    parameters = Parameters(seed=seed, validation_share=0.3, test_share=0.3)
    split = divide(sentences, parameters)
    works_of = [{example.id.partition("_")[0] for example in split[name]} for name in SPLITS]
    texts_of = [{same_text(example.text) for example in split[name] if example.kind == "sentence"} for name in SPLITS]
    for sides in (works_of, texts_of):
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
    assert split == divide(sentences, parameters)
    labels = {example.id: example.label for name in SPLITS for example in split[name]}
    for rated in sentences:
        single = f"{rated.source}-{rated.work}"
        name = single if single in labels else f"{single}_{rated.number}"
        if name in labels and abs(rated.rating) >= parameters.threshold:
            assert labels[name] == (rated.rating > 0)
