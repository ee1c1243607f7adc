"""Write docs/licences.md: the licence of every package that requirements.txt pins, as its own metadata has it.

Usage: python tools/licences.py
"""

import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
LONGEST = 60  # some packages have the whole text of the licence in the field that should name it

# Licences under which a work that uses the package has to be published likewise, none of which we want to take in.
COPYLEFT = ("GPL", "GNU GENERAL", "AFFERO")
# LGPL and MPL ask that of changes to the package itself alone.
WEAK = ("LGPL", "LESSER", "MPL", "MOZILLA")

HEAD = """# Licences of what is installed

`make licences` writes this page from the metadata of the packages that `requirements.txt` pins, for Python {python} on
this kind of machine. The code of this project is under the MIT licence; none of these packages is part of it, pip
installs them. {verdict}

| package | version | licence |
| --- | --- | --- |
"""
NONE_STRONG = "None of them is under a licence that would have to pass on to what uses it (GPL, AGPL)."


def licence_of(installed: Distribution) -> str:
    """The licence's name: its SPDX expression, or else its classifiers, or else the first line of text there is."""
    package = installed.metadata
    expression = package.get("License-Expression")
    if expression:
        return expression
    prefix = "License :: "
    named = [c.rsplit(" :: ", 1)[-1] for c in package.get_all("Classifier") or [] if c.startswith(prefix)]
    named = [name for name in named if name != "OSI Approved"]
    if named:
        return "; ".join(named)
    texts = [
        package.get("License") or "",
        *(file.read_text() for file in installed.files or () if "LICEN" in file.name),
    ]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Copyright")]
    return (lines or ["not stated"])[0][:LONGEST]


def is_strong(licence: str) -> bool:
    """Whether the licence would pass on to what uses the package, with no other one to choose."""
    text = licence.upper()
    if any(word in text for word in WEAK) or " OR " in text:
        return False
    return any(word in text for word in COPYLEFT)


def rows(requirements: Path) -> list[tuple[str, str, str]]:
    """Name, version and licence of each package that is pinned for this Python.

    Raises:
        SystemExit: if one is not installed.
    """
    found = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if not line[:1].isalpha():
            continue
        requirement = Requirement(line.rstrip(" \\"))
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            installed = distribution(requirement.name)
        except PackageNotFoundError:
            sys.exit(f"error: {requirement.name} is not installed; run `make venv` first")
        found.append((installed.metadata["Name"], installed.version, licence_of(installed)))
    return sorted(found, key=lambda row: row[0].lower())


def main() -> None:
    """Write the page."""
    found = rows(ROOT / "requirements.txt")
    strong = [f"{name} ({licence})" for name, _, licence in found if is_strong(licence)]
    verdict = f"Look at these before you pass on a bundle: {', '.join(strong)}." if strong else NONE_STRONG
    text = HEAD.format(python=".".join(map(str, sys.version_info[:2])), verdict=verdict)
    PAGE.write_text(text + "".join(f"| {' | '.join(row)} |\n" for row in found), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(found)} packages")


if __name__ == "__main__":
    main()
