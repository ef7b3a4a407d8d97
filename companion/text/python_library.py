"""Real text that comes with every Python and needs no network."""

from __future__ import annotations

import ast
import gc
import importlib
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from companion.text.documents import CorpusError, Document
from companion.text.splitting import position

# Of the standard library: tests, applications, generated tables, and packages that not every
# platform or release has.
_NOT_LIBRARY = frozenset({
    "test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data", "encodings",
    "distutils", "tkinter", "msilib", "site-packages", "dist-packages", "__pycache__",
})  # fmt: skip
_CODE_CHARACTERS = 2_000_000
_CODE_FILE_CHARACTERS = 100_000


def documentation() -> list[Document]:
    """The Python language reference as plain text, a document for each topic `help()` knows."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except (ImportError, AttributeError):
        topics = {}
    return _present("python-docs", [Document(name, topics[name]) for name in sorted(topics)])


def docstrings() -> list[Document]:
    """Docstrings of the public standard library, a document a module, in the source's order."""
    documents = []
    # A syntax tree is millions of objects and no cycle: searching them takes longer than parsing.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for name, path in _library_files():
            # Parsed, not imported: importing some modules opens a browser, or warns of deprecation.
            strings = _docstrings(ast.parse(path.read_bytes(), name))
            if strings:
                module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                documents.append(Document(module, "\n\n".join(strings)))
    finally:
        if collecting:
            gc.enable()
    return _present("python-docstrings", documents)


def code() -> list[Document]:
    """Source files of the public standard library, about two million characters of them."""
    documents: list[Document] = []
    total = 0
    # In the order of a hash up to the cap: an even choice, and nearly the same one next release.
    for name, path in sorted(_library_files(), key=lambda item: position(item[0], salt="code")):
        with tokenize.open(path) as file:  # heeds the encoding that a file declares
            text = file.read()
        if len(text) <= _CODE_FILE_CHARACTERS:
            documents.append(Document(name, text))
            total += len(text)
        if total >= _CODE_CHARACTERS:
            break
    return _present("python-code", sorted(documents, key=lambda document: document.name))


def _library_files() -> Iterator[tuple[str, Path]]:
    """Public source files of the standard library, in the order of their paths in it."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    for name, path in sorted(paths.items()):
        parts = name.split("/")
        private = any("-" in p or (p[0] == "_" and p[:2] != "__") for p in parts)
        if not private and not _NOT_LIBRARY.intersection(parts):
            yield name, path


def _docstrings(tree: ast.Module) -> list[str]:
    """Docstrings of a module and of all classes and functions in it, in the order of the source."""
    found = []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                found.append(docstring)
        # Definitions stand in statements (also below `if` and `try`), never in expressions: not
        # looking there makes this fast.
        for block in ("finalbody", "orelse", "handlers", "body"):
            children = getattr(node, block, None)
            if isinstance(children, list):
                pending += reversed(children)
    return found


def _present(name: str, documents: list[Document]) -> list[Document]:
    if not documents:
        raise CorpusError(
            f"{name} is text that ships with Python, and {sys.executable} comes without it; "
            "use another Python, or name a file or folder of your own"
        )
    return documents
