"""A Sphinx extension: the package reference writes itself. Plain Sphinx, no Jupyter Book.

A page of `book/reference` holds a line `% package: core`, `% packages` or `% commands`. When the
site is built, the text of `tools/reference.py` takes its place, and Sphinx's autodoc describes each
name in it. Signatures are shown as they are written, and names in them and in docstrings lead to
where they are described.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # where the book is built, only the package is installed
    sys.path.insert(0, str(ROOT))

from tools import chapters, reference  # noqa: E402


def write_names(app: Sphinx, name: str, source: list[str]) -> None:
    """Put names or commands where the page has the line that asks for them."""
    if not name.startswith("book/reference/"):
        return
    for line in source[0].splitlines():
        if line.startswith("% package: "):
            found = reference.names_page(line.removeprefix("% package: ").strip())
        elif line == "% packages":
            found = reference.packages_table()
        elif line == "% commands":
            found = reference.commands_page()
        else:
            continue
        source[0] = source[0].replace(line, found)


def _where(app: Sphinx, name: str) -> str:
    """The package or module under whose name the documented thing is described."""
    return str(app.env.ref_context.get("py:module") or name.rpartition(".")[0])


def write_docstring(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """A docstring as reStructuredText, the fields of a dataclass, and the chapters that use it."""
    where = _where(app, name)

    def link(code: str) -> str | None:
        found = reference.looked_up(code, where)
        return None if found == name else found

    text = "\n".join(lines)
    dataclass = what in ("class", "exception") and hasattr(thing, "__dataclass_fields__")
    if dataclass:  # help() of settings ends with their fields, which follow here anyway
        text = text.partition("\nFields:\n")[0]
    if what == "data":  # a dictionary's own docstring is that of all dictionaries
        text = reference.comment_of(name)
    lines[:] = reference.as_rst(text, link)
    if dataclass:
        lines += ["", *reference.field_lines(thing, link)]
    if name in reference.described():
        last = name.rpartition(".")[2]
        names = (name, f"{reference.home(thing).rpartition('.')[0]}.{last}")
        used = {path: None for each in names for path in reference.uses().get(each, [])}
        links = [
            f":doc:`/{path.relative_to(chapters.ROOT).with_suffix('').as_posix()}`" for path in used
        ]
        if links:
            lines += ["", ".. container:: used-in", "", f"    In {', '.join(links[:4])}.", ""]


def write_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, args: Any, result: Any
) -> tuple[str, str | None] | None:
    """Arguments and result as they are written."""
    if what in ("class", "exception", "function", "method"):
        arguments, given = reference.signature(thing)
        return arguments, given or None
    return None


def skip(app: Sphinx, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Fields of a dataclass stand in its list of fields, so not among its members once more."""
    owner = app.env.temp_data.get("autodoc:class")
    module = app.env.temp_data.get("autodoc:module")
    if owner and module:
        found: Any = sys.modules.get(module)
        for part in str(owner).split("."):
            found = getattr(found, part, None)
        if name in getattr(found, "__dataclass_fields__", {}):
            return True
    return None


def drop_bases(app: Sphinx, name: str, thing: type, options: Any, bases: list[Any]) -> None:
    """A base class without a public name says nothing to a reader."""
    bases[:] = [
        base
        for base in bases
        if base is not object and not getattr(base, "__name__", "_").startswith("_")
    ]


def name_targets(app: Sphinx, doctree: nodes.document) -> None:
    """In signatures names stand alone; say which of several things of that name each means."""
    for node in doctree.findall(pending_xref):
        if node.get("refdomain") != "py":
            continue
        target = str(node["reftarget"])
        name = reference.names_by_home().get(target) or reference.looked_up(
            target, str(node.get("py:module") or "")
        )
        if name is not None:
            node["reftarget"] = name
            node["refspecific"] = False
            node["reftype"] = "obj"


def leave(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Names of other packages stay plain; one of ours that nothing describes is a fault, which
    --nitpick reports."""
    ours = str(node["reftarget"]).startswith("companion.")
    return None if node.get("refdomain") != "py" or ours else content


def address(domain: str, info: dict[str, str]) -> str | None:
    """sphinx.ext.linkcode asks: where is the source?"""
    return reference.source_address(info["module"], info["fullname"]) if domain == "py" else None


def configure(app: Sphinx, config: Config) -> None:
    """Settings that are functions, which `_config.yml` cannot hold."""
    config.linkcode_resolve = address


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("config-inited", configure)
    app.connect("source-read", write_names)
    app.connect("autodoc-process-docstring", write_docstring)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-bases", drop_bases)
    app.connect("doctree-read", name_targets)
    app.connect("missing-reference", leave)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
