"""Queries a vulnerability database for every locked version (``make audit``); without a network it says so."""

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
SECONDS = 300


def main() -> int:
    command = [str(Path(sys.executable).parent / "pip-audit"), "--requirement", str(LOCK), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        found = json.loads(run.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, OSError, ValueError, KeyError) as error:
        print(f"Not audited: the vulnerability database was not reached ({type(error).__name__}).")
        return 0
    return report(found)


def report(found: list[dict[str, object]]) -> int:
    """Print what was found; 1 if any locked version has a known vulnerability."""
    known = [each for each in found if "vulns" in each]
    bad = [each for each in known if each["vulns"]]
    for each in bad:
        names = ", ".join(str(vulnerability["id"]) for vulnerability in each["vulns"])
        print(f"{each['name']} {each['version']}: {names}")
    print(f"{len(known)} of {len(found)} locked packages audited, {len(bad)} with known vulnerabilities.")
    if not known:
        print("The database knows none of them; this is not an audit.")
    return min(len(bad), 1)


if __name__ == "__main__":
    sys.exit(main())
