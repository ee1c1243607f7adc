"""Runs every fuzz target for some time and writes what came of it.

    python tools/fuzz/run.py [--seconds 600] [--target configs] [--logs FOLDER] [--corpus FOLDER]

It needs atheris and the packages of this repository. Where they are in two environments, use the Python of the first,
and set PYTHONPATH to the site-packages of the second. After a finding the target goes on for what is left of its time.
The input stays in the folder of logs, and `python tools/fuzz/fuzz_<target>.py FILE` reads it again. Exit status 1 if
there is one.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = ("annotations", "configs", "stores")
MAX_SECONDS = 10
MAX_MEMORY_MB = 2048
MAX_FINDINGS = 50
_STATS = re.compile(r"#(\d+)\s.*cov: (\d+) ft: (\d+) corp: (\d+)/\S+.*exec/s: (\d+) rss: (\d+)Mb")


@dataclass
class Summary:
    """What came of a target."""

    target: str
    seconds: float = 0.0
    executions: int = 0
    coverage: int = 0
    features: int = 0
    corpus: int = 0
    peak_mb: int = 0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rate = self.executions / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.target:<12} {self.executions:>9} executions in {self.seconds:.0f} s, {rate:.0f} a second; "
            f"{self.coverage} edges and {self.features} features seen, {self.corpus} inputs kept; "
            f"at most {self.peak_mb} MB; {len(self.findings)} findings"
        ]
        return "\n".join([*lines, *(f"  {finding}" for finding in self.findings)])


def fuzz(target: str, seconds: float, logs: Path, corpus: Path) -> Summary:
    """Fuzz one target.

    Args:
        target: one of `TARGETS`.
        seconds: how long.
        logs: folder for the output and for inputs that are findings.
        corpus: folder of inputs, which grows.
    """
    script = HERE / f"fuzz_{target}.py"
    corpus.mkdir(parents=True, exist_ok=True)
    logs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, script, "--write-seeds", corpus], check=True, env=environment)
    summary = Summary(target)
    started = time.monotonic()
    with open(logs / f"fuzz-{target}.log", "w", encoding="utf-8", errors="replace") as log:
        while (left := seconds - (time.monotonic() - started)) > 1 and len(summary.findings) < MAX_FINDINGS:
            command = [
                sys.executable,
                script,
                f"-max_total_time={int(left)}",
                f"-timeout={MAX_SECONDS}",
                f"-rss_limit_mb={MAX_MEMORY_MB}",
                f"-artifact_prefix={logs}/{target}-",
                "-max_len=20000",
                "-print_final_stats=1",
                corpus,
            ]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
            )
            runs = _follow(process, log, summary)
            summary.executions += runs
            if process.wait() == 0 and not runs:
                break
    summary.seconds = time.monotonic() - started
    return summary


def _follow(process: subprocess.Popen, log, summary: Summary) -> int:
    """Take down what a process says; returns its number of executions."""
    runs, reason, artifact = 0, "", ""
    for line in process.stdout:
        log.write(line)
        log.flush()
        match = _STATS.search(line)
        if match:
            runs, coverage, features, corpus, _, memory = map(int, match.groups())
            summary.coverage, summary.features = max(summary.coverage, coverage), max(summary.features, features)
            summary.corpus, summary.peak_mb = max(summary.corpus, corpus), max(summary.peak_mb, memory)
        if re.match(r"\w+(\.\w+)*(Error|Exception)\b", line) or "ERROR: libFuzzer" in line:
            reason = reason or line.strip()[:200]
        if "Test unit written to" in line:
            artifact = line.rpartition(" ")[2].strip()
    status = process.wait()
    if status:
        summary.findings.append(f"{reason or f'status {status}'} ({artifact or 'no input kept'})")
    return runs


def main() -> int:
    """Fuzz what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="for each target (default 600)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; may be repeated")
    parser.add_argument("--logs", type=Path, default=Path("fuzz-logs"), help="folder of logs and findings")
    parser.add_argument("--corpus", type=Path, help="folder of inputs that are kept from run to run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = options.corpus or Path(temporary)
        summaries = []
        for target in options.target or TARGETS:
            summaries.append(fuzz(target, options.seconds, options.logs.resolve(), base / target))
            print(summaries[-1], flush=True)
    text = "\n".join(map(str, summaries)) + "\n"
    (options.logs / "fuzz-summary.txt").write_text(text, encoding="utf-8")
    return int(any(summary.findings for summary in summaries))


if __name__ == "__main__":
    sys.exit(main())
