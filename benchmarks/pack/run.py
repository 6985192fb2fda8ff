"""Install what this machine lacks from this folder, and rebuild the results table.

    python3 run.py --minutes 9

Needs no network. Nothing is changed outside of this folder; options go to `benchmarks.reproduce`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SITE = HERE / "site"
PROJECT = HERE / "project"


def main() -> int:
    """Install, run; the exit status."""
    if not SITE.is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        wheels = map(str, sorted((HERE / "wheels").glob("*.whl")))
        subprocess.run([*install, "--target", str(SITE), *wheels], check=True)
    weights = json.loads((HERE / "weights.json").read_text(encoding="utf-8"))
    environment = {
        **os.environ,
        **{variable: str(HERE / place) for variable, place in weights.items()},
        "PYTHONPATH": os.pathsep.join((str(PROJECT), str(SITE))),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(HERE / "cache"),
    }
    options = ["--root", str(HERE / "data"), "--output", str(Path("results").absolute())]
    command = [sys.executable, "-m", "benchmarks.reproduce", *options, *sys.argv[1:]]
    return subprocess.run(command, cwd=PROJECT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
