"""A Sphinx extension: models that run in the page are loaded when the reader comes near.

A cell that shows a `companion.teaching.Play` stores its weights, script and style sheet in the
notebook. On the site the weights go to `_static/models/<SHA-256>.js`, a script, since a page that
is opened from a disk may load one and no other kind of file. The form's own script and style sheet
are one file each for all pages. A page that holds the comment `<!--model: CHAPTER CELL-->`, such as
`<!--model: training/generating_text gen-play-->`, shows that chapter's model there; in Jupyter and
in Colab the comment shows nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.osutil import relative_uri

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # where the book is built, only the package is installed
    sys.path.insert(0, str(ROOT))

from companion.teaching import play  # noqa: E402
from tools import page_models  # noqa: E402

FOLDER = "models"
BORROWED = re.compile(r"<!--model: (\S+) (\S+)-->")
CHECKSUM = re.compile(r'data-sha256="(\w+)"')
OWN_FILES = re.compile(r"(?s)<(style|script)>.*?</\1>\n?")


def is_model(node: nodes.Node) -> bool:
    """Whether a node is the HTML of a model."""
    return isinstance(node, nodes.raw) and page_models.SHELL in node.astext()


def without_weights(page: str, source: str) -> str:
    """The HTML with its weights in another file, `source`, and without script and style sheet."""
    return play.WEIGHTS.sub(f'data-source="{source}"', OWN_FILES.sub("", page))


def weights_script(page: str) -> tuple[str, str]:
    """The checksum of the weights in some HTML, and the script that holds them."""
    weights, checksum = play.WEIGHTS.search(page), CHECKSUM.search(page)
    if weights is None or checksum is None:
        raise ValueError("a stored model lacks its weights; run `make notebooks`")
    name = json.dumps(checksum[1])
    return checksum[1], f"(window.playModels ??= {{}})[{name}] = {json.dumps(weights[1])};\n"


class BorrowModels(SphinxTransform):
    """Puts the model that another chapter shows where a comment asks for it."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        """Sphinx's entry point to a transform."""
        for node in list(self.document.findall(nodes.raw)):
            if not (asked := BORROWED.fullmatch(node.astext().strip())):
                continue
            path = ROOT / "book" / f"{asked[1]}.ipynb"
            self.env.note_dependency(str(path))
            shown = page_models.stored(path)
            if asked[2] not in shown:
                raise ExtensionError(
                    f"{self.env.docname} asks for the model of cell {asked[2]} of {asked[1]}, "
                    f"which has models in the cells {[*shown]}"
                )
            node.replace_self(nodes.raw("", shown[asked[2]], format="html"))


class MoveWeights(SphinxPostTransform):
    """Moves the weights of each model out of its page."""

    default_priority = 6  # when of each output one form has been chosen
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Sphinx's entry point to a transform."""
        builder = self.app.builder
        for node in [node for node in self.document.findall(nodes.raw) if is_model(node)]:
            checksum, script = weights_script(node.astext())
            name = f"_static/{FOLDER}/{checksum}.js"
            path = Path(builder.outdir) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(script, encoding="ascii")
            source = relative_uri(builder.get_target_uri(self.env.docname), name)
            moved = without_weights(node.astext(), source)
            node.replace_self(nodes.raw("", moved, format="html"))


def copy_files(app: Sphinx) -> None:
    """Put the form's script and style sheet into the site."""
    if app.builder.format == "html":
        folder = Path(app.outdir) / "_static" / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for path in (play.SCRIPT, play.STYLE):
            shutil.copyfile(path, folder / path.name)


def add_files(app: Sphinx, page: str, template: str, context: Any, doctree: Any) -> None:
    """Script and style sheet, on pages that show a model."""
    if doctree is not None and any(map(is_model, doctree.findall(nodes.raw))):
        app.add_js_file(f"{FOLDER}/{play.SCRIPT.name}", loading_method="defer")
        app.add_css_file(f"{FOLDER}/{play.STYLE.name}")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_transform(BorrowModels)
    app.add_post_transform(MoveWeights)
    app.connect("builder-inited", copy_files)
    app.connect("html-page-context", add_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
