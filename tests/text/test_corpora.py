"""Corpora: what is loaded, from where, and what is said when it cannot be."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from companion.text import corpora, python_library
from companion.text.corpora import Corpus, corpus_names, load_corpus
from companion.text.documents import CorpusError, read_documents, read_folder, read_text
from companion.text.duplicates import SHINGLE_WORDS, near_duplicates
from companion.text.splitting import SPLITS

EMBEDDED = ("python-docs", "python-docstrings", "python-code")
ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def loaded(name: str) -> Corpus:
    return load_corpus(name)


def lines(number: int, word: str = "line") -> str:
    return "".join(f"{word} number {i} of {number} in this file\n" for i in range(number))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def test_a_path_may_be_a_str(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "a text\n")
    assert read_text(str(path)) == read_text(path) == "a text\n"
    assert read_documents(str(path), "a") == read_documents(path, "a")
    assert read_folder(str(tmp_path)) == read_folder(tmp_path)
    with pytest.raises(CorpusError, match="cannot read no/such/file"):
        read_text("no/such/file")


# --- embedded ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.slow
def test_embedded_corpora_are_real_text_near_80_10_10(name: str) -> None:
    sizes = loaded(name).sizes
    total = sum(size["characters"] for size in sizes.values())
    least = {"python-docs": 300_000, "python-docstrings": 800_000, "python-code": 1_500_000}
    assert least[name] < total < 2_500_000
    # Tried with Python 3.11, 3.12 and 3.13; topics are long and few, hence the room.
    assert 0.7 < sizes["train"]["characters"] / total < 0.9
    assert sizes["valid"]["characters"] / total > 0.05
    assert sizes["test"]["characters"] / total > 0.05


@pytest.mark.parametrize("name", EMBEDDED)
def test_no_document_and_no_near_duplicate_stands_in_two_splits(name: str) -> None:
    corpus = loaded(name)
    documents = [document for split in SPLITS for document in corpus.documents(split)]
    assert len({document.name for document in documents}) == len(documents)
    assert near_duplicates([document.text for document in documents]) == {}


def test_little_of_the_test_text_of_python_docs_can_be_read_in_training() -> None:
    def shingles(split: str) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for document in loaded("python-docs").documents(split):
            words = document.text.split()
            found.update(zip(*(words[i:] for i in range(SHINGLE_WORDS)), strict=False))
        return found

    train = shingles("train")
    for split in ("valid", "test"):
        unseen = shingles(split)
        # .01 with Python 3.11, 3.12 and 3.13; with the quoted topics kept .27 to .43.
        assert len(unseen & train) / len(unseen) < 0.04


def test_the_compound_statements_topic_swallows_the_topics_it_quotes() -> None:
    duplicates = dict(loaded("python-docs").report.duplicates)
    assert {duplicates[topic] for topic in ("if", "while", "for", "try", "with")} == {"compound"}


def test_docstrings_are_prose_in_the_order_of_the_source() -> None:
    corpus = loaded("python-docstrings")
    texts = {d.name: d.text for split in SPLITS for d in corpus.documents(split)}
    text = texts["textwrap"]
    assert text.startswith("Text wrapping and filling.\n")
    first, second = (
        text.index("Object for wrapping/filling text"),
        text.index("Fill a single paragraph"),
    )
    assert first < second
    assert "def " not in text
    assert not any(name.split(".")[0] in {"test", "idlelib", "encodings"} for name in texts)


def test_docstrings_below_conditions_are_found_and_other_strings_are_not() -> None:
    source = '''
if True:
    class A:
        """A."""
        x = "no docstring"
        async def f(self):
            """f."""
else:
    try:
        pass
    except ValueError:
        def g():
            """g."""
    finally:
        def h(): "h."
'''
    assert python_library._docstrings(python_library.ast.parse(source)) == ["A.", "f.", "g.", "h."]


def test_code_is_source_that_parses() -> None:
    for document in loaded("python-code").documents("valid"):
        compile(document.text, document.name, "exec", python_library.ast.PyCF_ONLY_AST)


def test_reading_the_library_imports_none_of_it() -> None:
    program = (
        "import sys; from companion.text.corpora import load_corpus; "
        "load_corpus('python-docs'); load_corpus('python-code'); "
        "print({'pooch', 'antigravity', 'this', 'tkinter', 'turtle'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    program = (
        "from companion.text import load_corpus; print(load_corpus('python-docs').fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )  # fmt: skip
    assert done.stdout.strip() == loaded("python-docs").fingerprint


def test_an_interpreter_without_its_text_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python_library.sysconfig, "get_path", lambda name: str(tmp_path))

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    for name in EMBEDDED:
        with pytest.raises(
            CorpusError, match=rf"{name} is text that ships with Python, .* another"
        ):
            load_corpus(name)


# --- files and folders ---------------------------------------------------------------------------


def test_a_file_is_read_cleaned_and_cut_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "notes", "\ufeff" + lines(100).replace("\n", " \r\n"))
    corpus = load_corpus(path)
    assert "".join(corpus.text(split) for split in SPLITS) == lines(100)
    assert corpus.report.line_ends == corpus.report.trailing_spaces == 100
    assert corpus.name == str(path)


def test_a_folder_is_read_with_all_below_it_whatever_the_order_of_its_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(12):
        write(tmp_path / f"sub{i % 3}" / f"{i}.txt", lines(10, f"word{i}"))
    write(tmp_path / "top.MD", lines(10, "top"))
    write(tmp_path / ".hidden" / "x.txt", lines(10, "hidden"))
    write(tmp_path / "empty.py", "")
    write(tmp_path / "picture.png", "no text\0")
    corpus = load_corpus(str(tmp_path))
    names = [document.name for split in SPLITS for document in corpus.documents(split)]
    assert sorted(names) == sorted([f"sub{i % 3}/{i}.txt" for i in range(12)] + ["top.MD"])
    assert corpus.report.empty == ("empty.py",)
    assert "Left out 1 other file" in corpus.summary()

    walk = os.walk

    def backwards(*args: object, **options: object) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, subfolders, files in walk(*args, **options):  # type: ignore[call-overload]
            subfolders.sort(reverse=True)
            yield folder, subfolders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert load_corpus(str(tmp_path)).fingerprint == corpus.fingerprint


def test_a_copy_of_a_document_is_dropped_before_splitting(tmp_path: Path) -> None:
    for i in range(8):
        write(tmp_path / f"{i}.txt", lines(10, f"word{i}"))
        write(tmp_path / f"copy-of-{i}.txt", lines(10, f"word{i}").upper())
    corpus = load_corpus(tmp_path)
    assert {dropped for dropped, _ in corpus.report.duplicates} == {
        f"copy-of-{i}.txt" for i in range(8)
    } or {dropped for dropped, _ in corpus.report.duplicates} == {f"{i}.txt" for i in range(8)}
    assert sum(len(corpus.documents(split)) for split in SPLITS) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"file\.txt is empty; name a file"),
        (b" \n\r\n\xef\xbb\xbf", r"file\.txt is empty; name a file"),
        (b"text\0more", r"file\.txt is not a text file: it has a NUL byte at byte offset 4; give"),
        (b"gr\xc3\xbc\xdfe", r"file\.txt is not UTF-8: byte 0xdf at byte offset 4 .*convert"),
        (b"one word", r"file\.txt is too short to split"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=message) as caught:
        load_corpus(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(("\ufeff" + lines(100, "größe")).encode(encoding))
    corpus = load_corpus(path)
    assert "".join(corpus.text(split) for split in SPLITS) == lines(100, "größe")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorpusError, match=r"begins as UTF-\d\d does and is damaged at byte offset"):
        load_corpus(path)


@pytest.mark.parametrize(
    ("encoding", "name"), [("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE")]
)
def test_utf_16_without_a_mark_is_told_how_to_convert(
    tmp_path: Path, encoding: str, name: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(lines(100, "größe").encode(encoding))
    with pytest.raises(CorpusError, match=rf"looks like {name} without .*iconv -f {name} -t UTF-8"):
        load_corpus(path)


def test_each_line_of_json_lines_is_a_document(tmp_path: Path) -> None:
    texts = [lines(5, f"word{i}") for i in range(40)]
    rows = [json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)]
    corpus = load_corpus(write(tmp_path / "data.jsonl", "\n".join(rows) + "\n\n"))
    documents = [document for split in SPLITS for document in corpus.documents(split)]
    assert {d.name: d.text for d in documents} == {
        f"data.jsonl:{i}": text for i, text in enumerate(texts, start=1)
    }
    write(tmp_path / "more" / "b.txt", lines(10, "besides"))
    assert load_corpus(tmp_path).report.documents_read == 41


@pytest.mark.parametrize("line", ["no json", '"a text"', '{"content": "a"}', '{"text": 3}', "[1]"])
def test_a_line_of_json_lines_without_a_text_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "data.jsonl", '{"text": "a"}\n' + line + "\n")
    with pytest.raises(
        CorpusError, match=r'data\.jsonl: line 2 is not a JSON object with the field "text".*\.txt'
    ):
        load_corpus(path)


def test_a_text_that_repeats_itself_is_cut_without_its_copies(tmp_path: Path) -> None:
    corpus = load_corpus(write(tmp_path / "a.txt", lines(100) * 8))
    assert "".join(corpus.text(split) for split in SPLITS) == lines(100)
    assert f"{7 * len(lines(100)):,} characters" in corpus.summary()


def test_characters_never_seen_in_training_are_counted_and_shown(tmp_path: Path) -> None:
    corpus = load_corpus(write(tmp_path / "a.txt", lines(95) + "numßer ö\n" * 3))
    assert corpus.unseen == {
        "valid": {"kinds": 0, "characters": 0, "most_frequent": ""},
        "test": {"kinds": 2, "characters": 6, "most_frequent": "ßö"},
    }
    said = "Never seen in training: 6 characters of the test text, of 2 kinds (ß ö)."
    assert said in corpus.summary()
    assert corpus.as_dict()["unseen"] == corpus.unseen


def test_a_character_that_leaves_no_mark_is_said_as_its_code_point_on_one_line(
    tmp_path: Path,
) -> None:
    corpus = load_corpus(write(tmp_path / "a.txt", "".join(map(chr, range(0x4E00, 0x4E64))) * 8))
    assert corpus.unseen["test"]["most_frequent"] == "\n"  # which cleaning adds at the end
    said = "Never seen in training: 1 character of the test text, of 1 kind (U+000A)."
    assert said in corpus.summary().splitlines()


def test_a_bad_file_in_a_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path / "good.txt", lines(20))
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(CorpusError, match=r"bad\.txt is not UTF-8: byte 0xff at byte offset 0"):
        load_corpus(tmp_path)


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "picture.png", "x")
    with pytest.raises(CorpusError, match=r"holds no text file; put files there that end in \.txt"):
        load_corpus(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/place", "there is no file or folder no/such/place; check the path"),
        ("missing.txt", r"there is no file or folder missing\.txt"),
        ("wikitext2", "unknown corpus 'wikitext2', .*did you mean wikitext-2.*python-docs, "),
        ("Python-Docs", "did you mean python-docs"),
        (
            "qqqq",
            r"unknown corpus 'qqqq', and no file or folder of that name; known are python-docs",
        ),
    ],
)
def test_an_unknown_name_is_told_what_there_is(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=message):
        load_corpus(name)


# --- a corpus ------------------------------------------------------------------------------------


def test_sizes_count_what_the_splits_hold(tmp_path: Path) -> None:
    corpus = load_corpus(write(tmp_path / "a.txt", lines(50, "größe")))
    for split in SPLITS:
        text = corpus.text(split)
        assert corpus.sizes[split] == {
            "documents": 1,
            "characters": len(text),
            "bytes": len(text.encode()),
            "words": len(text.split()),
        }


def test_a_corpus_without_its_text_goes_through_json(tmp_path: Path) -> None:
    corpus = load_corpus(write(tmp_path / "a.txt", lines(50)))
    described = json.loads(json.dumps(corpus.as_dict()))
    assert described["sizes"] == corpus.sizes
    assert described["fingerprint"] == corpus.fingerprint
    assert described["report"]["documents_kept"] == 1


def test_the_fingerprint_tells_apart_what_differs_in_one_character(tmp_path: Path) -> None:
    first = load_corpus(write(tmp_path / "a.txt", lines(50)))
    second = load_corpus(write(tmp_path / "a.txt", lines(50)[:-2] + "!\n"))
    assert first.fingerprint != second.fingerprint


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    corpus = load_corpus(write(tmp_path / "a.txt", lines(50)))
    with pytest.raises(ValueError, match="split must be one of train, valid, test, all, got 'dev'"):
        corpus.text("dev")
    assert corpus.text("all") == "".join(map(corpus.text, SPLITS))


@pytest.mark.parametrize("limit", [1000, 777])
def test_max_characters_shortens_each_split_by_the_same_factor(tmp_path: Path, limit: int) -> None:
    path = write(tmp_path / "a.txt", lines(1000))
    whole, short = load_corpus(path), load_corpus(path, max_characters=limit)
    total = sum(size["characters"] for size in whole.sizes.values())
    for split in SPLITS:
        assert whole.text(split).startswith(short.text(split))
        share = whole.sizes[split]["characters"] * limit / total
        assert share - len(lines(1000)) / 900 < short.sizes[split]["characters"] <= share
        assert short.text(split).endswith("\n")
    assert f"to {limit:,}." in str(short.report)
    assert load_corpus(path, max_characters=10**9) == whole


@pytest.mark.parametrize("limit", [0, -3, 2])
def test_max_characters_that_leaves_nothing_is_refused(tmp_path: Path, limit: int) -> None:
    with pytest.raises(CorpusError, match=rf"max_characters must .*got {limit}"):
        load_corpus(write(tmp_path / "a.txt", lines(50)), max_characters=limit)


# --- published benchmarks ------------------------------------------------------------------------


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Small texts in place of the published ones, with their checksums; no download."""
    texts = {place: lines(40, place) + " kept \r\n" for place in corpora._PUBLISHED}
    files = {
        place: corpora._PublishedFile(
            "http://127.0.0.1:9/" + place, hashlib.sha256(text.encode()).hexdigest()
        )
        for place, text in texts.items()
    }
    monkeypatch.setattr(corpora, "_PUBLISHED", files)
    monkeypatch.delenv("COMPANION_DATA", raising=False)
    return texts


@pytest.fixture
def served(
    published: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, int]]:
    """The texts on a server of this machine, and how often each was asked for; an empty cache."""
    asked: dict[str, int] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = self.path[1:]
            asked[place] = asked.get(place, 0) + 1
            body = published[place].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    import pooch

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    files = {
        place: corpora._PublishedFile(f"http://127.0.0.1:{server.server_port}/{place}", file.sha256)
        for place, file in corpora._PUBLISHED.items()
    }
    monkeypatch.setattr(corpora, "_PUBLISHED", files)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_fetched_corpus_is_downloaded_once_and_never_altered(
    served: dict[str, int], published: dict[str, str]
) -> None:
    for _ in range(2):
        corpus = load_corpus("wikitext-2")
        for split in SPLITS:
            assert corpus.text(split) == published[f"wikitext-2/{split}.txt"]
    assert served == {f"wikitext-2/{split}.txt": 1 for split in SPLITS}
    assert str(corpus.report).endswith("not cleaned, so that figures compare.")


def test_a_download_writes_nothing_below_a_cell_of_a_notebook(
    served: dict[str, int], published: dict[str, str]
) -> None:
    import pooch

    logger, said = pooch.get_logger(), io.StringIO()
    level, handler = logger.level, logging.StreamHandler(said)
    logger.addHandler(handler)
    try:
        load_corpus("tiny-shakespeare")
    finally:
        logger.removeHandler(handler)
    assert sum(served.values()) == 1
    assert said.getvalue() == ""
    assert logger.level == level


def test_a_download_with_another_checksum_is_refused(
    served: dict[str, int], published: dict[str, str]
) -> None:
    published["tinyshakespeare/input.txt"] += "tampered"
    for _ in range(2):
        with pytest.raises(CorpusError, match=r"checksum is not the published one.*COMPANION_DATA"):
            load_corpus("tiny-shakespeare")


def test_without_network_and_folder_it_is_said_what_to_do(
    published: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    # Nothing answers at the discard port.
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(
        CorpusError, match=r"could not be fetched .*COMPANION_DATA, or use an emb"
    ) as e:
        load_corpus("tiny-shakespeare")
    assert "\n" not in str(e.value)


def test_an_example_is_left_out_in_one_line_where_its_text_cannot_be_fetched(
    published: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert corpora.load_corpus_if_reachable("tiny-shakespeare") is None
    said = "tiny-shakespeare cannot be fetched here: this example is left out.\n"
    assert capsys.readouterr().out == said
    write(tmp_path / "tinyshakespeare/input.txt", published["tinyshakespeare/input.txt"])
    there = corpora.load_corpus_if_reachable("tiny-shakespeare", data_dir=tmp_path)
    assert there == load_corpus("tiny-shakespeare", data_dir=tmp_path)
    with pytest.raises(CorpusError, match="did you mean tiny-shakespeare"):
        corpora.load_corpus_if_reachable("tiny-shakespear")


def test_an_example_is_not_left_out_where_the_file_is_damaged(
    served: dict[str, int], published: dict[str, str]
) -> None:
    published["tinyshakespeare/input.txt"] += "tampered"
    with pytest.raises(CorpusError, match="checksum is not the published one"):
        corpora.load_corpus_if_reachable("tiny-shakespeare")


def test_files_in_the_data_folder_are_used_as_they_are_and_differences_said(
    published: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, text in published.items():
        write(tmp_path / place, text)
    write(tmp_path / "wikitext-2/train.txt", lines(40, "other"))
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    corpus = load_corpus("wikitext-2")
    assert corpus.text("train") == lines(40, "other")
    assert corpus.text("valid") == published["wikitext-2/valid.txt"]
    about = [note for note in corpus.report.notes if "is not the published file" in note]
    assert len(about) == 1
    assert about[0].startswith("wikitext-2/train.txt")
    assert load_corpus("wikitext-2", data_dir=tmp_path) == corpus


def test_tiny_shakespeare_is_cut_after_nine_tenths_of_its_characters(
    published: dict[str, str], tmp_path: Path
) -> None:
    text = published["tinyshakespeare/input.txt"]
    write(tmp_path / "tinyshakespeare/input.txt", text)
    corpus = load_corpus("tiny-shakespeare", data_dir=tmp_path)
    assert corpus.text("train") + corpus.text("valid") == text
    assert len(corpus.text("train")) == len(text) * 9 // 10
    with pytest.raises(CorpusError, match="no test split; use train or valid"):
        corpus.text("test")


def test_a_data_folder_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CorpusError, match="data_dir must name a folder, got '/no/such'"):
        load_corpus("wikitext-2", data_dir="/no/such")
    monkeypatch.setenv("COMPANION_DATA", str(write(tmp_path / "file", "x")))
    with pytest.raises(CorpusError, match="COMPANION_DATA must name a folder"):
        load_corpus("tiny-shakespeare")


def test_the_real_benchmarks_have_their_published_sizes(companion_data: Path) -> None:
    shakespeare = load_corpus("tiny-shakespeare", data_dir=companion_data)
    assert shakespeare.sizes["train"]["characters"] == 1_003_854
    assert shakespeare.sizes["valid"]["characters"] == 111_540
    assert len(shakespeare.report.notes) == 1
    wikitext = load_corpus("wikitext-2", data_dir=companion_data)
    words = [wikitext.sizes[split]["words"] for split in SPLITS]
    assert words == [2_051_910, 213_886, 241_211]


def test_names_are_listed_with_a_line_about_each() -> None:
    assert corpus_names() == tuple(corpora.corpus_descriptions())
    assert {*EMBEDDED, "tiny-shakespeare", "wikitext-2"} == set(corpus_names())
