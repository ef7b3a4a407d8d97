"""Queries in readers' words, and what each must find; from a server and from disk.

What a query downloads is counted as it lies on disk, not compressed: the search's own files, which
is what it costs beyond the page.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlparse

import browsed_site
import pytest
from browsed_site import HTML, ROOT
from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
browser, site = browsed_site.browser, browsed_site.site  # fixtures

MOST_BYTES = 300_000

#: What a reader types -> the page that must be among the first three.
QUERIES = {
    "RLHF": "objective_mismatch/tuning_toward_a_reward",
    "jailbreak": "objective_mismatch/competing_objectives",
    "reward hacking": "objective_mismatch/proxies_and_goodhart",
    "teacher forcing": "objective_mismatch/likelihood_is_not_quality",
    "perplexty": "cross_entropy/cross_entropy_and_perplexity",
    "Goodhart's law": "objective_mismatch/proxies_and_goodhart",
    "exposure bias": "objective_mismatch/likelihood_is_not_quality",
    "forget gate": "training/lstm",
    "nucleus sampling": "training/generating_text",
    "learning rate": "training/training_loop",
    "Kneser-Ney": "background/language_models",
    "arithmetic coding": "cross_entropy/surprise_and_code_length",
    "out of distribution": "mismatched_generalization/distribution_shift",
    "memorisation": "mismatched_generalization/fitting_and_memorizing",
    "prompt injection": "objective_mismatch/competing_objectives",
    "quantization": "practice/smaller_models",
    "scaling laws": "practice/scale_and_cost",
    "attention": "practice/translation",
    "byte pair encodng": "training/text_to_tokens",
    "token_nats": "reference/losses",
    "cheating": "objective_mismatch/proxies_and_goodhart",
    "temperature": "training/generating_text",
    "fairness": "practice/bias_and_review",
}

#: Nothing of this is in the book or near a word that is.
NOTHING = "zzqqxjv"


#: Address, title, excerpt and marked words of each result.
RESULTS = """
[...document.querySelectorAll('#site-search-results li')].map(item => [
  item.querySelector('a').getAttribute('href'), item.querySelector('a').textContent,
  item.querySelector('p')?.textContent ?? '', item.querySelectorAll('mark').length])
"""


@pytest.fixture(scope="module")
def ask(browser: Browser, site: str) -> Callable[..., dict[str, Any]]:
    """Types a query into the search page's address, in a fresh profile."""

    def search(query: str, base: str = site) -> dict[str, Any]:
        context = browser.new_context(viewport={"width": 390, "height": 844})
        page = context.new_page()
        files: list[str] = []
        faults = browsed_site.faults_of(page)
        page.on("request", lambda request: files.append(unquote(urlparse(request.url).path)))
        page.goto(f"{base}search.html?q={quote(query)}", wait_until="load")
        page.wait_for_function(
            "/found/.test(document.querySelector('#site-search-status').textContent)"
        )
        if query != NOTHING:
            page.wait_for_selector("#site-search-results[data-query]", state="attached")
        found = page.evaluate(RESULTS)
        status = page.locator("#site-search-status").inner_text()
        context.close()
        own = {HTML / "search" / Path(name).name for name in files if "/search/" in name}
        size = sum(path.stat().st_size for path in own if path.exists())
        return {"found": found, "status": status, "bytes": size, "faults": faults}

    return search


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_finds_its_page_with_an_excerpt_of_prose(
    ask: Callable[..., dict[str, Any]], query: str
) -> None:
    seen = ask(query)
    print(f"{query}: {seen['bytes']:,} bytes; {seen['status']}")
    for href, title, text, marks in seen["found"][:3]:
        print(f"  {title} ({href}): {text[:110]} [{marks}]")
    pages = [href.partition("#")[0] for href, *_ in seen["found"][:3]]
    assert any(page.endswith(f"book/{QUERIES[query]}.html") for page in pages)
    assert seen["bytes"] <= MOST_BYTES
    assert seen["faults"] == []
    assert sum(len(text) > 60 for _, _, text, _ in seen["found"][:3]) >= 2
    assert any(marks for *_, marks in seen["found"][:3])


@pytest.mark.parametrize("query", ["RLHF", "perplexty"])
def test_the_search_works_from_disk(ask: Callable[..., dict[str, Any]], query: str) -> None:
    served, from_disk = ask(query), ask(query, f"{HTML.as_uri()}/")
    assert from_disk["faults"] == []
    assert from_disk["found"] == served["found"]


def test_a_mistyped_word_is_said_and_nothing_found_is_said(
    ask: Callable[..., dict[str, Any]],
) -> None:
    assert "perplexity for what you typed" in ask("perplexty")["status"].replace("with ", "")
    assert ask(NOTHING)["status"] == "No sections found."


def test_a_definition_is_shown_whole(ask: Callable[..., dict[str, Any]]) -> None:
    (text,) = (
        text for href, title, text, _ in ask("overfitting")["found"]
        if "glossary" in href and title == "Overfitting"
    )  # fmt: skip
    said = (ROOT / "book/appendix/glossary.md").read_text(encoding="utf-8")
    definition = said.partition("\nOverfitting\n  ")[2].partition(".")[0]
    assert text.startswith(definition[:40])


@pytest.mark.parametrize("query", ["fairness", "cheating", "temperature"])
def test_the_first_result_explains_and_does_not_ask(
    ask: Callable[..., dict[str, Any]], query: str
) -> None:
    (href, title, *_), *_ = ask(query)["found"]
    assert QUERIES[query] in href
    assert title not in ("Exercises", "Your guesses")
    assert ask(query)["status"].endswith("found.")  # with no other word for it


def test_each_result_leads_to_a_place_that_is_there(ask: Callable[..., dict[str, Any]]) -> None:
    found = ask("entropy of the source")["found"]
    assert found
    for href, *_ in found:
        page, _, place = href.partition("#")
        text = (HTML / page.removeprefix("./")).read_text(encoding="utf-8")
        assert not place or f'id="{place}"' in text


def test_more_results_come_by_keyboard(browser: Browser, site: str) -> None:
    page = browser.new_page()
    page.goto(f"{site}search.html")
    assert page.evaluate("document.activeElement.id") == "site-search-field"
    page.keyboard.type("loss")
    page.keyboard.press("Enter")
    page.wait_for_selector("#site-search-more")
    assert page.url.endswith("?q=loss")
    page.locator("#site-search-more").press("Enter")
    page.wait_for_function("document.querySelectorAll('#site-search-results li').length > 10")
    page.wait_for_function("document.activeElement.closest('#site-search-results')")
    page.close()


FOUND = "/found/.test(document.querySelector('#site-search-status').textContent)"
FAILED = "/try again/.test(document.querySelector('#site-search-status').textContent)"
EXCERPTS = "**/search/text-*.js"


def test_a_slow_answer_does_not_come_after_that_of_a_later_query(
    browser: Browser, site: str
) -> None:
    """The excerpts of the first query arrive when the second one is asked."""
    page = browser.new_page()
    held: list[Any] = []
    released = False

    def hold(route: Any) -> None:
        if released:
            route.continue_()
        else:
            held.append(route)

    page.route(EXCERPTS, hold)
    # Not until all is loaded: that can wait for what is held.
    page.goto(f"{site}search.html?q=perplexity", wait_until="domcontentloaded")
    page.wait_for_function(FOUND)
    field = page.locator("#site-search-field")
    field.fill("nucleus sampling")
    field.press("Enter")
    released = True
    assert held
    for route in held:
        route.continue_()
    page.wait_for_selector("#site-search-results[data-query='nucleus sampling']", state="attached")
    page.wait_for_load_state("networkidle")
    assert page.locator("#site-search-results li").count() == 10
    assert page.locator("#site-search-more").count() == 1
    page.close()


def test_what_cannot_be_loaded_is_said_and_tried_again(browser: Browser, site: str) -> None:
    page = browser.new_page()
    page.route(EXCERPTS, lambda route: route.abort("failed"))
    page.goto(f"{site}search.html?q=perplexity", wait_until="load")
    page.wait_for_function(FAILED)
    page.unroute(EXCERPTS)
    page.locator("#site-search-field").press("Enter")
    page.wait_for_selector("#site-search-results[data-query='perplexity']", state="attached")
    assert page.evaluate(FOUND)
    held: list[Any] = []
    page.route(EXCERPTS, lambda route: held.append(route))
    more = page.locator("#site-search-more")
    more.press("Enter")
    page.wait_for_function("document.querySelector('#site-search-more').disabled")
    for route in held:
        route.abort("failed")
    page.wait_for_function(FAILED)
    assert more.is_enabled()
    page.close()
