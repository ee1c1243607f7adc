"""Mutation testing of the modules whose faults would not be seen but in the results.

    python tools/mutation/run.py [--cosmic-ray PATH] [--survivors] [--sample SHARE] [MODULE ...]

For each module cosmic-ray lists the mutants and writes one after the other into a copy of the repository in a temporary
folder, where the zygote runs the tests of that module, see `zygote.py`. What comes of it is kept below build/mutation,
printed, and written to docs/results/mutation.md once all modules have been run. Ends with 1 if a mutant is neither
killed nor explained in `explained.yaml`, or an explanation is not needed.

A module that has not changed since, nor its tests, is not run again; an unfinished one goes on where it stopped. After
tests have been added `--survivors` runs those mutants again that have survived, since the others stay killed.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import report
from ask import ask

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
STORE = "feature_store"
STORE_TESTS = tuple(f"tests/mrcnn/test_{name}.py" for name in ("store_layout", "feature_store", "store_shards"))
# Module -> its tests, the quick ones first.
MODULES = {
    "mrcnn/network/boxes.py": ("tests/mrcnn/network/test_boxes.py",),
    "mrcnn/network/losses.py": ("tests/mrcnn/network/test_losses.py",),
    "mrcnn/network/targets.py": ("tests/mrcnn/network/test_targets.py", "tests/mrcnn/network/test_target_rules.py"),
    "mrcnn/metrics.py": ("tests/mrcnn/test_metrics.py", "tests/mrcnn/test_metrics_coco.py"),
    "autoencoder/losses.py": ("tests/autoencoder/test_losses.py",),
    "autoencoder/adaptation.py": ("tests/autoencoder/test_adaptation.py",),
    "mrcnn/store_layout.py": STORE_TESTS,
    "mrcnn/store_parts.py": STORE_TESTS,
    "mrcnn/store_checks.py": STORE_TESTS,
    "mrcnn/store_reader.py": STORE_TESTS,
    "mrcnn/store_writer.py": STORE_TESTS,
    "mrcnn/store_shards.py": STORE_TESTS,
}
# A mutant has so many times as long as the tests take, and at least so many seconds.
TIMES_AS_LONG, LEAST_SECONDS = 5, 60
# By then the zygote has answered, whatever the mutant does.
GRACE_SECONDS = 60
# In the database of a session: survivors, mutants whose tests took too long, and those whose tests could not be run.
SURVIVORS = (
    "test_outcome = 'SURVIVED' OR output LIKE '{\"exit\": \"timeout\"%'"
    " OR (worker_outcome != 'SKIPPED' AND output NOT LIKE '{%')"
)


def chosen_modules(names: Sequence[str]) -> list[str]:
    """Modules by their paths or last names, such as "losses" for both files of losses; all for no name.

    Raises:
        ValueError: for another name.
    """
    found = []
    for name in names:
        alike = [m for m in MODULES if name in (m, Path(m).stem) or (name == STORE and MODULES[m] == STORE_TESTS)]
        if not alike:
            raise ValueError(f"{name} is none of {', '.join((*MODULES, STORE))}")
        found += alike
    return list(dict.fromkeys(found)) or list(MODULES)


def copy_repository(target: Path) -> None:
    """Copy the files of the repository, those that git does not know yet too."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


@contextlib.contextmanager
def zygote(folder: Path) -> Iterator[str]:
    """Run the zygote and give the path of its socket."""
    path = folder / "zygote"
    with (folder / "zygote.log").open("w") as log:
        process = subprocess.Popen([sys.executable, HERE / "zygote.py", path], stdout=log, stderr=log)
        try:
            while not path.exists():
                if process.poll() is not None:
                    raise SystemExit(f"error: the zygote does not start:\n{(folder / 'zygote.log').read_text()}")
                time.sleep(0.1)
            yield str(path)
        finally:
            process.terminate()
            process.wait()


def baseline(socket: str, tree: Path, tests: Sequence[str]) -> float:
    """Seconds that the tests take on the module as it is; the first run tells the zygote which ones are quick."""
    for _ in range(2):
        started = time.perf_counter()
        outcome = ask(socket, 600, str(tree), list(tests))
        if outcome["exit"] != 0:
            raise SystemExit(f"error: {' '.join(tests)} fail without any mutation:\n{outcome['output']}")
    return time.perf_counter() - started


def fingerprint(paths: Sequence[str], folder: Path = ROOT) -> str:
    """Digest of files of the repository, or of its copy."""
    return hashlib.sha256(b"\0".join((folder / path).read_bytes() for path in paths)).hexdigest()


class Session:
    """The mutants of one module, and what is known of them, as files below build/mutation."""

    def __init__(self, module: str, folder: Path, cosmic_ray: str):
        self.module, self.tests, self.cosmic_ray = module, MODULES[module], cosmic_ray
        name = module.removesuffix(".py").replace("/", "_")
        self.database, self.config, self.notes = (folder / f"{name}.{end}" for end in ("sqlite", "toml", "json"))

    def noted(self) -> dict:
        """What was noted of the last run; {} if the module is not the same any more."""
        if not (self.notes.exists() and self.database.exists()):
            return {}
        noted = json.loads(self.notes.read_text())
        return noted if noted["module"] == fingerprint([self.module]) else {}

    def mutants(self) -> list[report.Mutant]:
        """All mutants with their verdicts."""
        done = subprocess.run([self.cosmic_ray, "dump", self.database], capture_output=True, text=True, check=True)
        return report.read_dump(done.stdout.splitlines())

    def run(self, tree: Path, socket: str, survivors_alone: bool, sample: float) -> None:
        """Run what has not been run: all, the rest, or the survivors again; of all mutants or of a share of them."""
        noted = self.noted()
        module, tests = fingerprint([self.module], tree), fingerprint(self.tests, tree)
        afresh = noted.get("module") != module or (noted["tests"] != tests and not survivors_alone)
        normal = baseline(socket, tree, self.tests)
        timeout = max(TIMES_AS_LONG * normal, LEAST_SECONDS)
        command = [sys.executable, "-I", "-S", HERE / "ask.py", socket, f"{timeout:.0f}", tree, *self.tests]
        self.config.write_text(
            "[cosmic-ray]\n"
            f"module-path = {json.dumps(self.module)}\n"
            f"timeout = {timeout + GRACE_SECONDS:.1f}\n"
            "excluded-modules = []\n"
            f"test-command = {json.dumps(shlex.join(str(word) for word in command))}\n"
            '[cosmic-ray.distributor]\nname = "local"\n'
        )
        if afresh:
            self.database.unlink(missing_ok=True)
            self._call(tree, self.cosmic_ray, "init", self.config, self.database)
        elif survivors_alone:
            self._forget(SURVIVORS)
        self._forget("output = 'not sampled'")
        beside = Path(shutil.which(self.cosmic_ray)).parent / "python"
        self._call(tree, beside, "-W", "ignore", HERE / "skip_mutants.py", self.database, "--sample", str(sample))
        self.notes.write_text(json.dumps({"module": module, "tests": tests, "date": date.today().isoformat()}))
        self._call(tree, self.cosmic_ray, "exec", self.config, self.database)

    def _call(self, tree: Path, *command: str | Path) -> None:
        subprocess.run(command, cwd=tree, check=True)

    def _forget(self, which: str) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(f"DELETE FROM work_results WHERE {which}")


def machine() -> str:
    """Number and make of the cores, such as "2 cores of an Intel Xeon"."""
    model = ""
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        model = found.group(1) if found else ""
    model = re.sub(r"\((R|TM)\)|\bProcessor\b|\bCPU\b|@.*", "", model or platform.processor() or platform.machine())
    name = " ".join(model.split())
    return f"{os.cpu_count()} cores of {'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def main() -> int:
    """Run what the command line asks for, print what came of it, and write the page once all modules have been run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    paths = ", ".join((*MODULES, STORE))
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"path or name; default: all of {paths}")
    beside = Path(sys.executable).with_name("cosmic-ray")
    default = str(beside) if beside.exists() else "cosmic-ray"
    parser.add_argument("--cosmic-ray", default=default, metavar="PATH", help=f"the program (default: {beside.name})")
    parser.add_argument("--survivors", action="store_true", help="run again what has survived or timed out, no other")
    parser.add_argument("--sample", type=float, default=1.0, metavar="SHARE", help="run a share of the mutants, 0 to 1")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutation", help="where results are kept")
    parser.add_argument("--page", action="store_true", help="write the page although modules have not been run")
    parser.add_argument("--report", action="store_true", help="run nothing, report what is known")
    options = parser.parse_args()
    try:
        chosen = chosen_modules(options.modules)
    except ValueError as error:
        parser.error(str(error))
    if shutil.which(options.cosmic_ray) is None:
        parser.error(f"no program {options.cosmic_ray}; install requirements-tools.txt or give --cosmic-ray PATH")
    # So that the zygote ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    kept = options.folder.resolve()
    kept.mkdir(parents=True, exist_ok=True)
    sessions = {module: Session(module, kept, options.cosmic_ray) for module in MODULES}
    if not options.report:
        with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
            tree = Path(folder) / "tree"
            copy_repository(tree)
            with zygote(Path(folder)) as socket:
                for module in chosen:
                    print(f"{module} ...", flush=True)
                    sessions[module].run(tree, socket, options.survivors, options.sample)
    explanations = report.read_explanations(HERE / "explained.yaml")
    known = {module: noted for module, session in sessions.items() if (noted := session.noted())}
    missing = [module for module in MODULES if module not in known]
    summaries = [report.summarize(module, sessions[module].mutants(), explanations) for module in known]
    if known and (options.page or not missing):
        dates = sorted({noted["date"] for noted in known.values()})
        when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
        text = report.page(summaries, explanations, machine(), when, missing)
        (ROOT / "docs" / "results" / "mutation.md").write_text(text, encoding="utf-8")
    shown = [s for s in summaries if s.file in chosen]
    print("\n".join([*report.table(shown), *(row for summary in shown for row in report.left_to_do(summary))]))
    return 0 if all(summary.is_complete for summary in shown) else 1


if __name__ == "__main__":
    sys.exit(main())
