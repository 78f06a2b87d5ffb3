"""Collect JSON files into one object on stdout, each under its name without ``.json``.

Run: python collect.py out/train.json out/predict.json > report.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def collect(files: list[Path]) -> dict[str, Any]:
    """The contents by name, in the order in which they are given."""
    return {file.stem: json.loads(file.read_text()) for file in files}


if __name__ == "__main__":
    json.dump(collect([Path(name) for name in sys.argv[1:]]), sys.stdout, indent=2)
    sys.stdout.write("\n")
