"""Command line: what to write."""

from __future__ import annotations

import argparse
import time

from tools.paper import offline, pages


def main() -> None:
    """Write the named files, and say how large they are."""
    parser = argparse.ArgumentParser(prog="python -m tools.paper", description="The book offline.")
    parser.add_argument("kinds", nargs="+", choices=["pdf", "epub", "zip"])
    for kind in parser.parse_args().kinds:
        path = pages.OUT / f"{pages.STEM}.{kind}"
        start = time.monotonic()
        if kind == "pdf":
            from tools.paper import pdf  # needs Chromium's driver

            pdf.write(pages.read(), path)
        elif kind == "epub":
            from tools.paper import epub

            epub.write(pages.read(), path)
        else:
            offline.write(path)
        size = path.stat().st_size / 1e6
        print(f"{path}: {size:.1f} MB, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
