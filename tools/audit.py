"""Whether the installed packages fit together, and whether any of them has a known vulnerability.

Usage: python tools/audit.py [--offline]

`pip check` needs no network. pip-audit asks a public database; where it cannot be reached, that is said and the exit
status is 3, so that nobody takes silence for a clean result.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("requirements.txt", "requirements-tools.txt")

# Both name opencv-python, whose module cv2 opencv-python-headless brings without needing libGL.
KNOWN = ("requires opencv-python, which is not installed.",)


def unmet_demands() -> list[str]:
    """What `pip check` complains of, but for what is known and harmless."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"], capture_output=True, text=True
    )
    lines = [line for line in done.stdout.splitlines() if line != "No broken requirements found."]
    return [line for line in lines if not line.endswith(KNOWN)] + done.stderr.splitlines()


def audit(requirements: Path) -> int:
    """Ask for the vulnerabilities of what a file pins, and print what is known.

    Returns:
        0 none known, 1 some, 3 the database does not answer for some package.
    """
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        str(requirements),
        "--disable-pip",
        "--require-hashes",
    ]
    done = subprocess.run([*command, "--progress-spinner", "off", "--format", "json"], capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"{requirements.name}: {(done.stderr.strip().splitlines() or ['no answer'])[-1][:300]}")
        return 3
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    affected = [package for package in packages if package.get("vulns")]
    print(f"{requirements.name}: {len(packages)} packages, {len(affected)} vulnerable, {len(unknown)} not looked up")
    for package in affected:
        print(f"  {package['name']} {package['version']}: {', '.join(v['id'] for v in package['vulns'])}")
    return 1 if affected else 3 if unknown else 0


def main() -> None:
    """Check, audit and print; the exit status is the worst that was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offline", action="store_true", help="leave out what needs the network")
    offline = parser.parse_args().offline
    complaints = unmet_demands()
    print(
        "\n".join(complaints) or "pip check: all demands met, but for opencv-python (opencv-python-headless is there)"
    )
    results = [] if offline else [audit(ROOT / name) for name in REQUIREMENTS]
    if 3 in results:
        print("The database of vulnerabilities did not answer for all; run this where the network allows it.")
    sys.exit(1 if complaints or 1 in results else 3 if 3 in results else 0)


if __name__ == "__main__":
    main()
