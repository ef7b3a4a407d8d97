"""The package reference: pages of Markdown whose names Sphinx's autodoc then describes.

Nothing here is written by hand: `book/_ext/package_reference.py` puts these texts into the pages of
`book/reference` when the site is built, so a name that is new in a package's `__init__`, a new
study and a new option of a command are there by themselves. The docstrings of `companion` are plain
text with `code` between single backticks, lists, and blocks of code that are indented; `as_rst`
turns them into what Sphinx reads.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ForwardRef

from tools import chapters, packages

#: The packages that have a page of names; the commands have one of their own.
PACKAGES = tuple(name for name in packages.ORDER if name not in ("cli", "__main__"))

#: Longest default value that a page shows of a field or a constant.
LONGEST_VALUE = 72


# --- Which names there are ------------------------------------------------------------------------


def exported(package: str) -> dict[str, list[str]]:
    """The public names of a package by the module that they are imported from, in its order.

    What `__init__` defines by itself stands under the package's own name.
    """
    module = importlib.import_module(f"companion.{package}")
    public = set(module.__all__)
    tree = ast.parse(_modules()[package].read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [alias.asname or alias.name for alias in node.names]
            found.setdefault(node.module, []).extend(name for name in names if name in public)
    own = sorted(public - {name for names in found.values() for name in names})
    if own:
        found[f"companion.{package}"] = own
    return {name: names for name, names in found.items() if names}


def studies() -> list[str]:
    """The names of the studies."""
    names: tuple[str, ...] = importlib.import_module("companion.studies").study_names()
    return list(names)


@functools.cache
def uses() -> dict[str, list[Path]]:
    """The chapters that import a name or take it from a module, by its full name there."""
    found: dict[str, list[Path]] = {}

    def note(name: str, path: Path) -> None:
        if path not in found.setdefault(name, []):
            found[name].append(path)

    for path in chapters.toc_notebooks():
        modules: dict[str, str] = {}
        for cell in chapters.code_cells(chapters.read_notebook(path))[1:]:
            tree = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", cell["source"]))
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("companion"):
                    for alias in node.names:
                        name = f"{node.module}.{alias.name}"
                        modules[alias.asname or alias.name] = name
                        note(name, path)
                elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in modules:
                    note(f"{modules[ast.unparse(node.value)]}.{node.attr}", path)
    return found


@functools.cache
def by_module() -> dict[str, dict[str, list[str]]]:
    """The full names that a page describes, by package and module.

    They are those that a package exports, under its own name; and those that a chapter takes from a
    module though no package exports them, under the module's.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for package in PACKAGES:
        of_module = {
            module: [f"companion.{package}.{name}" for name in names]
            for module, names in exported(package).items()
        }
        if package == "studies":
            for study in studies():
                module = f"companion.studies.{study}"
                of_module[module] = [f"{module}.{name}" for name in ("Config", "Result", "run")]
        public = {name for names in exported(package).values() for name in names}
        listed = {name for names in of_module.values() for name in names}
        for name in sorted(uses()):
            module, _, last = name.rpartition(".")
            inside = module.startswith(f"companion.{package}.")
            known = last in public or name in listed
            if inside and not known and module.removeprefix("companion.") in _modules():
                of_module.setdefault(module, []).append(name)
        found[package] = of_module
    return found


@functools.cache
def described() -> set[str]:
    """All full names that the pages describe."""
    return {
        name for modules in by_module().values() for names in modules.values() for name in names
    }


def found_at(name: str) -> Any:
    """The object of a full name, `companion.models.LSTMConfig`."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def home(thing: Any) -> str:
    """Where a class or function is defined: `companion.models.lstm.LSTMConfig`; "" for others."""
    module, name = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", "")
    return f"{module}.{name}" if module and name else ""


@functools.cache
def names_by_home() -> dict[str, str]:
    """The full name under which a page describes what is defined somewhere."""
    # Where a package passes on what is another's, sorted backwards the earlier one comes last.
    names = sorted(described(), reverse=True)
    return {home(thing): name for name in names if home(thing := found_at(name))}


@functools.cache
def _by_last_part() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(described()):
        found.setdefault(name.rpartition(".")[2], []).append(name)
    return found


def looked_up(text: str, where: str) -> str | None:
    """The described name that `text` means in the package or module `where`; None if there is none.

    A name of the same module or package comes before one of another package, which must be the only
    one. Before the last part may stand its package or module: `calibration.fit_temperature`.
    """
    found = _by_last_part().get(text.rpartition(".")[2], [])
    before = text.rpartition(".")[0].removeprefix("companion.")
    if before:
        found = [
            name
            for name in found
            if before in (_place(name), home(found_at(name)).rpartition(".")[0].partition(".")[2])
            or home(found_at(name)).split(".")[-2:-1] == [before]
        ]
    for here in (where, ".".join(where.split(".")[:2])):
        own = [name for name in found if name.rpartition(".")[0] == here]
        if len(own) == 1:
            return own[0]
    others = [name for name in found if not name.startswith("companion.studies.")]
    return others[0] if len(others) == 1 else None


def _place(name: str) -> str:
    return name.rpartition(".")[0].removeprefix("companion.")


# --- Docstrings and signatures --------------------------------------------------------------------

#: Between backticks, one or two: code.
CODE = re.compile(r"(``?)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
#: Signs that mean something to reStructuredText.
SPECIAL = re.compile(r"[\\*|_]")


def as_rst(text: str, link: Callable[[str], str | None] = lambda code: None) -> list[str]:
    """A docstring, cleaned, as lines of reStructuredText; `link` gives the full name of code.

    Indented lines after a blank one are a block of code, unless they go on with a list.
    """
    lines: list[str] = []
    in_list = False
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        indented = block.startswith("  ")
        if indented and not in_list:
            lines += ["::", "", *(f"    {line}" for line in block.splitlines()), ""]
            continue
        if block.startswith(">>> "):
            lines += [*block.splitlines(), ""]
            continue
        arguments = _arguments(block)
        if arguments:
            for name, said in arguments:
                body = _inline(said, link).splitlines()
                lines += [f"``{name}``", *(f"    {line}" for line in body), ""]
            in_list = False
            continue
        # A list is one also where no blank line parts it from the sentence that announces it.
        pieces = re.split(r"\n(?=- )", block)
        if len(pieces) > 1 and not pieces[0].startswith("- "):
            lines += [*_inline(pieces[0], link).splitlines(), ""]
            pieces = pieces[1:]
        in_list = pieces[0].startswith("- ") or (indented and in_list)
        for piece in pieces:
            lines += _inline(piece, link).splitlines()
        lines.append("")
    return lines


#: The line that begins the text of an argument: `prompt: token ids, one text a row`.
ARGUMENT = re.compile(r"([a-z]\w*(?:, [a-z]\w*)*): +(\S.*)")


def _arguments(block: str) -> list[tuple[str, str]]:
    """Names and texts of a block that lists arguments, lines that go on indented; else nothing."""
    found: list[tuple[str, str]] = []
    for line in block.splitlines():
        begin = ARGUMENT.fullmatch(line)
        if begin:
            found.append((begin[1], begin[2]))
        elif line.startswith("    ") and found:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line.strip()}")
        else:
            return []
    return found


def _inline(text: str, link: Callable[[str], str | None]) -> str:
    """Code between single backticks as literals, linked where they name something; the rest as it
    is."""
    parts: list[str] = []
    end = 0
    for found in CODE.finditer(text):
        parts.append(SPECIAL.sub(r"\\\g<0>", text[end : found.start()]))
        code = " ".join(found[2].split())
        name = link(code.removesuffix("()"))
        # A letter right before or behind would hide the markup: `B`s.
        start = "\\ " if parts[-1][-1:].isalnum() else ""
        after = text[found.end() : found.end() + 1]
        stop = "\\ " if after.isalnum() or after == "_" else ""
        shown = f":py:obj:`{code} <{name}>`" if name else f"``{code}``"
        parts.append(start + shown + stop)
        end = found.end()
    parts.append(SPECIAL.sub(r"\\\g<0>", text[end:]))
    return "".join(parts)


def comment_of(name: str) -> str:
    """What is written about a constant where it is defined, behind `#:` or in a string below it."""
    from sphinx.pycode import ModuleAnalyzer

    package, _, last = name.rpartition(".")
    modules = by_module()[package.split(".")[1]]
    module = next(module for module, names in modules.items() if name in names)
    found = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", last), [])
    return "\n".join(found).strip()


def signature(thing: Any) -> tuple[str, str]:
    """Arguments and result of a function or class, annotations as they are written.

    The shapes of jaxtyping are imported under TYPE_CHECKING, so they are text and stay it. A
    dataclass has none: its fields say all that there is to say. Nor has a protocol, as nobody makes
    one.
    """
    protocol = getattr(thing, "_is_protocol", False)
    if inspect.isclass(thing) and (dataclasses.is_dataclass(thing) or protocol):
        return "", ""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return "", ""
    parameters = [each for each in found.parameters.values() if each.name not in ("self", "cls")]
    shown = [
        each.replace(
            annotation=_Plain(each.annotation) if each.annotation is not each.empty else each.empty,
            default=_Plain(_value(each.default)) if each.default is not each.empty else each.empty,
        )
        for each in parameters
    ]
    arguments = _spelled_out(str(inspect.Signature(shown)), thing)
    result = found.return_annotation
    if inspect.isclass(thing) or result is inspect.Signature.empty:
        return arguments, ""
    return arguments, _spelled_out(str(_Plain(result)), thing)


def _spelled_out(text: str, thing: Any) -> str:
    """A signature in which a name that several things have is that of the right one.

    Sphinx leaves out all but the last part of what a tilde stands before.
    """
    function = inspect.unwrap(thing.__init__ if inspect.isclass(thing) else thing)
    scope = getattr(function, "__globals__", {})

    def full(found: re.Match[str]) -> str:
        several = len(_by_last_part().get(found[0], [])) > 1
        name = names_by_home().get(home(scope.get(found[0])), "") if several else ""
        return f"~{name}" if name else found[0]

    return re.sub(r"(?<![\w.'\"])[A-Z]\w+(?![\w'\"])", full, text)


class _Plain:
    """A text that a signature shows without quotes."""

    def __init__(self, annotation: Any) -> None:
        if isinstance(annotation, ForwardRef):  # of a NamedTuple
            annotation = annotation.__forward_arg__
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        # The blank in Float[Tensor, " vocab"] is for linters.
        self.text = re.sub(r"(['\"])\s+(\w)", r"\1\2", text)

    def __repr__(self) -> str:
        return self.text


def _value(value: Any) -> str:
    """A default value: a function or class by its name, another one as Python writes it."""
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__
    text = repr(value)
    if dataclasses.is_dataclass(value):
        name = type(value).__qualname__
        changed = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        }
        text = f"{name}({', '.join(f'{key}={_value(each)}' for key, each in changed.items())})"
    return text if len(text) <= LONGEST_VALUE and not text.startswith("<") else "..."


def fields(thing: type) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and text of each field of a dataclass, as they are written."""
    from companion.core.settings import field_texts

    texts = _texts_of(thing, field_texts)
    for field in dataclasses.fields(thing):
        default = ""
        if field.default is not dataclasses.MISSING:
            default = _value(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = _value(field.default_factory())
        yield field.name, str(_Plain(field.type)), default, texts.get(field.name, "")


def _texts_of(thing: type, field_texts: Callable[[type], dict[str, str]]) -> dict[str, str]:
    """The texts under the fields; a dataclass that is no class of settings may lack some."""
    try:
        return field_texts(thing)
    except AssertionError:
        (tree,) = ast.parse(inspect.cleandoc(inspect.getsource(thing))).body
        assert isinstance(tree, ast.ClassDef)
        return {
            node.target.id: " ".join(str(ast.literal_eval(text.value)).split())
            for node, text in zip(tree.body, tree.body[1:], strict=False)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        }  # fmt: skip


def field_lines(thing: type, link: Callable[[str], str | None]) -> list[str]:
    """The fields of a dataclass as a definition list in reStructuredText."""
    lines: list[str] = []
    for name, annotation, default, text in fields(thing):
        value = f" = {default}" if default else ""
        body = as_rst(text, link) if text else [".."]
        lines += [f"``{name}: {annotation}{value}``", *(f"    {each}" for each in body), ""]
    return [".. container:: fields", "", *(f"    {line}" for line in lines)] if lines else []


# --- Pages ----------------------------------------------------------------------------------------


def names_page(package: str) -> str:
    """The body of a package's page: each module's names, as Markdown with autodoc's directives."""
    parts = [_markdown(importlib.import_module(f"companion.{package}").__doc__ or "", package)]
    for module, names in by_module()[package].items():
        heading = module.rpartition(".")[2]
        doc = importlib.import_module(module).__doc__ or ""
        within = module if package == "studies" else f"companion.{package}"
        if package == "studies" and heading == "runner":
            heading = "Running a study"
        parts += [
            f"## {heading}"
            if package != "studies" or heading == "Running a study"
            else f"## `{heading}`"
        ]
        if module != f"companion.{package}":
            parts.append(_markdown(doc, package))
        lines = [f".. py:currentmodule:: {within}", ""]
        for name in names:
            lines += [f".. {_directive(found_at(name))}:: {name}", *_options(found_at(name)), ""]
        parts.append("\n".join(["```{eval-rst}", *lines, "```"]))
    return "\n\n".join(parts) + "\n"


def _directive(thing: Any) -> str:
    if inspect.isclass(thing) and home(thing).startswith("companion."):
        return "autoexception" if issubclass(thing, BaseException) else "autoclass"
    return "autofunction" if inspect.isroutine(thing) else "autodata"


def _options(thing: Any) -> list[str]:
    directive = _directive(thing)
    if directive in ("autoclass", "autoexception"):
        bases = any(base.__name__[:1] != "_" and base is not object for base in thing.__bases__)
        return ["   :members:", *(["   :show-inheritance:"] if bases else [])]
    if directive == "autodata" and len(repr(thing)) > LONGEST_VALUE:
        return ["   :no-value:"]
    return []


def _markdown(doc: str, package: str) -> str:
    """A docstring within a page of Markdown."""
    where = f"companion.{package}"
    lines = as_rst(inspect.cleandoc(doc), lambda code: looked_up(code, where))
    return "\n".join(["```{eval-rst}", f".. py:currentmodule:: {where}", "", *lines, "```"])


def packages_table() -> str:
    """The packages, what each is for, and how many names it has, as a table in Markdown."""
    rows = ["| package | what it is for | names |", "|---|---|---|"]
    for package in PACKAGES:
        doc = importlib.import_module(f"companion.{package}").__doc__ or ""
        first = " ".join(re.split(r"\n\s*\n", doc)[0].split())
        number = len({name for names in by_module()[package].values() for name in names})
        rows.append(f"| [`{package}`]({package}.md) | {first} | {number} |")
    return "\n".join(rows)


# --- Commands -------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, Any]]:
    """Each command and what it is, in the order of `companion --help`."""
    import typer

    from companion.cli import app

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        inner: Mapping[str, Any] = getattr(command, "commands", {})
        if not inner:
            yield name, command
        for last, each in inner.items():
            yield from walk(f"{name} {last}", each)

    yield from walk("companion", typer.main.get_command(app))


def commands_page() -> str:
    """The body of the page of commands: usage, help and options of each."""
    parts = []
    for name, command in commands():
        context = command.context_class(command, info_name=name)
        shown = [each for each in command.params if not getattr(each, "hidden", False)]
        arguments = [each for each in shown if each.param_type_name == "argument"]
        options = [each for each in shown if each.param_type_name == "option"]
        usage = [name]
        usage += [_named(each) if each.required else f"[{_named(each)}]" for each in arguments]
        usage += [_as_typed(each, context) for each in options if each.required]
        usage += ["[OPTIONS]"] if any(not each.required for each in options) else []
        parts += [f"## {name}", f"```text\n{' '.join(usage)}\n```", _prose(command.help or "")]
        parts.append(f"```{{program}} {name}\n```")
        parts += [_parameter(each, context) for each in (*arguments, *options)]
    return "\n\n".join(parts) + "\n"


def _named(argument: Any) -> str:
    """An argument as help shows it: RUN."""
    name: str = argument.metavar or argument.name.upper()
    return name if argument.nargs == 1 else f"{name}..."


def _as_typed(option: Any, context: Any) -> str:
    """An option and what stands behind it: `--seed <int range>`."""
    return str(option.get_help_record(context)[0]).replace(" / ", ", ")


def _parameter(parameter: Any, context: Any) -> str:
    """An option or argument with its text and its default, as a directive of Sphinx."""
    argument = parameter.param_type_name == "argument"
    heading = _named(parameter) if argument else _as_typed(parameter, context)
    default = parameter.show_default if isinstance(parameter.show_default, str) else None
    flag = getattr(parameter, "is_flag", False)
    if default is None and parameter.show_default and not flag and not parameter.required:
        value = parameter.default
        default = None if value in (None, "") or callable(value) else str(value)
    words = [_prose(parameter.help or ""), "Required." if parameter.required else ""]
    words.append(f"Default: {_prose(default)}." if default else "")
    body = " ".join(word for word in words if word)
    return f"````{{option}} {heading}\n{body}\n````"


def _prose(text: str) -> str:
    """A help text as Markdown; an option within it is code, so that its dashes stay two."""
    parts = re.split(r"(`[^`]*`)", inspect.cleandoc(text.replace("\b", "").replace("\f", "")))
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"(?<![\w-])--?[a-z][\w-]*", r"`\g<0>`", parts[i])
    return "".join(parts).replace("<", "&lt;").strip()


def source_address(module: str, name: str) -> str | None:
    """Where the repository shows the source of something; None for what has none of its own."""
    from sphinx.pycode import ModuleAnalyzer

    thing: Any = importlib.import_module(module)
    for part in name.split("."):
        thing = getattr(thing, part, None)
    thing = thing.fget if isinstance(thing, property) else thing
    thing = inspect.unwrap(thing) if callable(thing) else thing
    where = str(getattr(thing, "__module__", ""))
    if where.removeprefix("companion.") not in _modules():
        return None
    lines = ModuleAnalyzer.for_module(where).find_tags().get(getattr(thing, "__qualname__", ""))
    if lines is None:
        return None
    path = _modules()[where.removeprefix("companion.")].relative_to(chapters.ROOT)
    return f"{_repository()}/blob/{chapters.BRANCH}/{path.as_posix()}#L{lines[1]}-L{lines[2]}"


_repository = functools.cache(chapters.repository_url)
_modules = functools.cache(packages.modules)
