"""Print the Makefile's targets with what they say of themselves; needs nothing installed."""

from __future__ import annotations

import re
from pathlib import Path

MAKEFILE = Path(__file__).resolve().parent.parent / "Makefile"


def targets(text: str) -> dict[str, str]:
    """Target and description of every ``name: ## description`` line, in their order."""
    return dict(re.findall(r"^([a-z][a-z-]*):[^#\n]*## (.+)$", text, re.MULTILINE))


def main() -> None:
    print("make TARGET [NAME=value …]\n")
    for name, description in targets(MAKEFILE.read_text(encoding="utf-8")).items():
        print(f"  {name:10} {description}")


if __name__ == "__main__":
    main()
