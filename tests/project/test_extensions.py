"""Small extensions of the site: what they make of a page; none is built."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from docutils.utils import new_document
from extensions import extension
from packed_page import file_in

from companion.evaluation.claims import Claims
from companion.figures.drawings import CATALOGUE
from companion.teaching import Guesses, play
from tools import chapters, drawings
from tools import page_models as stored_models

ROOT = Path(__file__).resolve().parents[2]


line_ends = extension("line_ends")
inline_drawings = extension("inline_drawings")
page_models = extension("page_models")


def joined(*parts: nodes.Node) -> list[str]:
    """What a paragraph holds in the end: text as it is, elements in brackets."""
    document = new_document("page")
    document += nodes.paragraph("", "", *parts)
    line_ends.join(SimpleNamespace(), document)
    return [
        part.astext() if isinstance(part, nodes.Text) else f"<{part.astext()}>"
        for part in document[0]
    ]


def formula() -> nodes.math:
    return nodes.math("x", "x")


@pytest.mark.parametrize(
    ("behind", "found"),
    [
        (". Then", ["<x.>", " Then"]),
        (".", ["<x.>"]),
        ("), which", ["<x),>", " which"]),
        ("%’s", ["<x%’>", "s"]),
        ("-gram", ["<x->", "gram"]),
        (" and .", ["<x>", " and ."]),
        ("(y)", ["<x>", "(y)"]),
        ("s", ["<x>", "s"]),
    ],
)
def test_a_formula_keeps_the_signs_behind_it(behind: str, found: list[str]) -> None:
    assert joined(nodes.Text("Of "), formula(), nodes.Text(behind)) == ["Of ", *found]


def test_a_formula_without_text_behind_it_stays_as_it_is() -> None:
    assert joined(formula()) == ["<x>"]
    assert joined(formula(), nodes.strong("", ".")) == ["<x>", "<.>"]
    assert joined(formula(), nodes.Text(", "), formula(), nodes.Text("!")) == ["<x,>", " ", "<x!>"]


def test_a_number_keeps_its_per_cent_sign_outside_code() -> None:
    document = new_document("page")
    document += nodes.paragraph(
        "", "", nodes.Text("A 96 % share, x % y"), nodes.literal("", "7 % 3")
    )
    document += nodes.literal_block("", "8 % 5")
    line_ends.keep_per_cent(SimpleNamespace(), document)
    assert document[0].astext() == "A 96\N{NO-BREAK SPACE}% share, x % y7 % 3"
    assert document[1].astext() == "8 % 5"


def test_what_claims_and_guesses_print_is_a_printed_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Claims("known_floor").holds("more than nothing", lambda run: run["kl_nats_per_token"] > 0)
    guesses = Guesses()
    guesses["share"] = 60
    guesses.reveal("share", 58.4, digits=0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line_ends.SENTENCE.fullmatch(line), line


def test_printed_sentences_are_marked_and_tables_are_not() -> None:
    claim = "In 6 of 6 stored runs: fewer bits, 0.05 nats above it."
    two_lines = "You have not guessed yet;\nit is a long list."
    short = "You guessed 1; it is &lt;b&gt;."
    table = "epoch  bits\n    1   2.5\n"
    before = f"<pre><span></span>{table}{claim}\n{two_lines}\n{short}\n</pre>"
    after = before
    for sentence in (claim, two_lines, short):
        after = after.replace(sentence, f'<span class="printed-sentence">{sentence}</span>')
    assert line_ends.mark_sentences(f"<p>{claim}</p>{before}") == f"<p>{claim}</p>{after}"
    first = f"<pre><span></span>{claim}\n</pre>"
    assert line_ends.mark_sentences(first).count("printed-sentence") == 1
    for line in ("In 6 of 6 runs: no.", "row  In 6 of 6 stored runs: no.", "it is 2."):
        assert line_ends.mark_sentences(f"<pre>{line}\n</pre>") == f"<pre>{line}\n</pre>"


def shown(uri: str) -> nodes.Node:
    document = new_document("page")
    document += nodes.paragraph("", "", nodes.image(uri=uri))
    inline_drawings.InlineDrawings(document).run()
    return document[0][0]


def test_a_drawing_within_the_text_is_part_of_the_page() -> None:
    for path in drawings.files():
        node = shown(path.relative_to(ROOT).as_posix())
        assert isinstance(node, nodes.raw)
        assert node["format"] == "html"
        assert node.astext() == CATALOGUE[path.stem].svg
    assert isinstance(shown("book/assets/logo.svg"), nodes.image)


# --- models that run in the page ------------------------------------------------------------------

#: The HTML of each model in the book.
MODELS = [page for path in chapters.toc_notebooks() for page in stored_models.stored(path).values()]


def moved(page: str, folder: Path) -> nodes.Node:
    """What a chapter's page has in place of a model's HTML."""
    document = new_document("page")
    document.settings.env = SimpleNamespace(
        docname="book/training/chapter",
        app=SimpleNamespace(
            builder=SimpleNamespace(
                outdir=str(folder),
                get_target_uri=lambda name: f"{name}.html",
            )
        ),
    )
    document += nodes.container("", nodes.raw("", page, format="html"))
    page_models.MoveWeights(document).run()
    return document[0][0]


@pytest.mark.parametrize("page", MODELS, ids=map(str, range(len(MODELS))))
def test_the_weights_of_a_model_stand_in_a_file_of_their_own(page: str, tmp_path: Path) -> None:
    node = moved(page, tmp_path)
    (file,) = (tmp_path / "_static" / "models").glob("*.js")
    assert f'data-source="../../_static/models/{file.name}"' in node.astext()
    assert f'data-sha256="{file.stem}"' in node.astext()
    assert len(node.astext()) < 5000
    assert "<fieldset disabled" in node.astext()
    weights = re.search(r'\["(\w+)"\] = "([\w+/=]+)";\n$', file.read_text("ascii"))
    assert weights is not None
    assert weights[1] == file.stem
    assert base64.b64decode(weights[2]) == file_in(page)


def test_a_model_without_its_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="run `make notebooks`"):
        page_models.weights_script(play.WEIGHTS.sub("", MODELS[0]))


def test_a_model_is_borrowed_by_a_comment_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    def page(comment: str) -> nodes.Node:
        document = new_document("page")
        noted: list[str] = []
        document.settings.env = SimpleNamespace(docname="page", note_dependency=noted.append)
        document += nodes.raw("", f"{comment}\n", format="html")
        page_models.BorrowModels(document).apply()
        assert all(Path(name).exists() for name in noted)
        return document[0]

    (wanted,) = stored_models.stored(ROOT / "book" / "training" / "generating_text.ipynb").values()
    assert page("<!--model: training/generating_text gen-play-->").astext() == wanted
    assert page("<!-- a remark -->").astext() == "<!-- a remark -->\n"
    with pytest.raises(page_models.ExtensionError, match=r"\['gen-play'\]"):
        page("<!--model: training/generating_text other-->")
