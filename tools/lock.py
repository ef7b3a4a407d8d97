"""Write requirements.lock: what pip resolves from pyproject.toml in a fresh environment.

Uses the standard library alone, so that any Python can run it. torch is installed first, at the
version the present lock names; its local version (+cpu) and the accelerator libraries it brings on
some machines are left out: each machine gets its own. To move torch, edit its line and run this.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"

HEADER = """\
# Versions that were installed and tested together, used by `make` as pip's constraints.
# Written by `make lock` from pyproject.toml.
"""

#: Belongs to the machine (accelerator libraries) or to the environment itself (pip).
NOT_LOCKED = re.compile(r"^(nvidia-|cuda-|triton|pip==|trained-to-predict)")


def main() -> None:
    """Resolve, freeze, write."""
    torch = re.search(r"^torch==\S+$", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    if torch is None:
        raise SystemExit("requirements.lock must hold a line torch==VERSION")
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", torch.group()], check=True)
        own = Path(folder) / "torch.txt"
        own.write_text(torch.group() + "\n", encoding="utf-8")
        wanted = f"{ROOT}[book,test,dev]"
        subprocess.run([*pip, "install", "--quiet", "--constraint", str(own), wanted], check=True)
        subprocess.run([*pip, "check"], check=True)
        freeze = subprocess.run(
            [*pip, "freeze", "--all"], check=True, capture_output=True, text=True
        )
    lines = [re.sub(r"\+\w+$", "", line) for line in freeze.stdout.splitlines()]
    kept = sorted((line for line in lines if not NOT_LOCKED.match(line)), key=str.lower)
    strange = [line for line in kept if not re.fullmatch(r"[\w.\-]+==[\w.]+", line)]
    if strange:
        raise SystemExit(f"not a plain pin: {strange}")
    LOCK.write_text(HEADER + "\n".join(kept) + "\n", encoding="utf-8")
    print(f"requirements.lock: {len(kept)} packages")


if __name__ == "__main__":
    main()
