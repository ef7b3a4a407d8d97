"""Print requirements that pin the lowest versions pyproject.toml allows, for `make minimum`.

The package's own dependencies, optuna, sacrebleu and ipywidgets are pinned at their lower bounds.
torch is the exception: it stays at the locked version, whose build for the machine at hand is
already there. The test tools are not under test and come from the lock.
"""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import chapters

#: Without these the tests of pictures, and so of ipywidgets, would be skipped.
READERS = ["beautifulsoup4"]


def pinned(path: Path) -> dict[str, str]:
    """Name to version, as the file pins them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [line.split(";")[0].split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def locked() -> dict[str, str]:
    """Name to version, as requirements.lock pins them."""
    return pinned(chapters.ROOT / "requirements.lock")


def lower_bound(requirement: Requirement) -> str:
    """The version after >= (or ==); ValueError when the requirement has neither."""
    for specifier in requirement.specifier:
        if specifier.operator in (">=", "=="):
            return specifier.version
    raise ValueError(f"{requirement} needs a lower bound (>=) in pyproject.toml")


def pins() -> list[str]:
    """The lines of the requirements file."""
    project = chapters.project()["project"]
    extras = project["optional-dependencies"]
    live = [text for text in extras["book"] if Requirement(text).name == "ipywidgets"]
    lines = []
    optional = [
        text for name in ("metrics", "transformers", "translation", "tune") for text in extras[name]
    ]
    for text in [*project["dependencies"], *optional, *live]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        version = locked()[name] if name == "torch" else lower_bound(requirement)
        lines.append(f"{name}=={version}")
    tools = [canonicalize_name(Requirement(text).name) for text in extras["test"]]
    lines += [f"{name}=={locked()[name]}" for name in [*tools, *READERS]]
    return lines


if __name__ == "__main__":
    print("\n".join(pins()))
