"""Small wrong changes, one at a time, each against the tests that reach its line: which of them does no test notice?

`python -m tests.mutants`, as `make mutants` runs it. The changes are those of cosmic-ray's operators; one of each place
and kind, in an order that the seed says, until the package's share of the time is up. What a test reaches is asked of
coverage, test by test. Each package has a copy of the tree, so that nothing here is changed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants_inside import FAILED, LIMITS, PLUGIN

ROOT = Path(__file__).parent.parent
MEMORY = Path("/dev/shm")  # the tests of the buffer wait for the disk, and that is not what is tried
KEPT = ROOT / "test-output/mutants.json"
COPIED = ("agent", "drivers", "center", "tests", "bench", "deploy", "docs", "pyproject.toml", "agent.toml.example")
PYTEST = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", "-o", "addopts=--strict-markers")
PATIENCE = 6.0
"""How many times as long as without a change the tests may run, and then whether they hang is asked: see `tried`."""
NEAR = 30
"""What noticed a change so many lines away is tried first."""
EQUAL: dict[type[ast.cmpop], ast.cmpop] = {ast.Is: ast.Eq(), ast.IsNot: ast.NotEq()}
NOT_HERE = {"VariableInserter", "VariableReplacer"}  # these need to be told what and where


@dataclass(frozen=True)
class Package:
    """What is changed, and whose tests must notice: its unit tests, `without` those that fill disks, sweep files or say
    how many seconds something takes."""

    name: str
    changed: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        return *self.tests, *(f"--deselect={prefix}" for prefix in self.without)


PACKAGES = (
    Package(
        "agent/buffer",
        ("agent/buffer/*.py",),
        ("tests/buffer",),
        tuple(f"tests/buffer/test_{name}.py" for name in ("committer", "full", "flips", "turns")),
    ),
    Package("agent/delivery", ("agent/delivery/*.py",), ("tests/delivery",)),
    Package("agent/clock", ("agent/clock/*.py",), ("tests/clock",)),
    Package("agent/sensing", ("agent/sensing/*.py",), ("tests/sensing",)),
    Package(
        "drivers/bme280",
        ("drivers/bme280*.py",),
        tuple(f"tests/drivers/test_{name}.py" for name in (
            "bit_errors", "bme280", "chip", "compensation", "contract", "faults", "golden", "lock",
        )),
    ),
    Package(
        "center registries",
        (
            "center/stores/registry.py",
            *(f"center/embedded/{name}.py" for name in ("registry", "database")),
            *(f"center/influx/{name}.py" for name in (
                "registry", "auth_bucket", "enrollment", "claims", "documents", "roll", "rows", "issuing",
            )),
        ),
        (
            "tests/center/stores",
            "tests/center/influx",
            "tests/center/embedded/test_database.py",
            "tests/center/embedded/test_bounds.py",
        ),
        tuple(f"tests/center/stores/test_telemetry.py::test_{name}" for name in (
            "10000_devices", "both_stores_agree_over_several",
        )),
    ),
)  # fmt: skip


@dataclass
class Mutant:
    package: Package
    path: str
    operator: str
    occurrence: int
    line: int
    end: str = ""
    diff: str = ""

    @property
    def place(self) -> tuple[str, str, int]:
        return self.path, self.operator, self.occurrence


@dataclass
class Reached:
    """Of a package's tests: how long each takes, and which run each line."""

    took: dict[str, float]
    lines: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    noticed: list[tuple[str, int, str]] = field(default_factory=list)
    """Of each change that was: path, line, test."""

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Those that noticed another change near by, then the quickest; all of them for what runs at import."""
        found = [name for name in self.lines.get(mutant.path, {}).get(mutant.line, ()) if name]
        near = {test for path, line, test in self.noticed if path == mutant.path and abs(line - mutant.line) <= NEAR}
        return sorted(found or self.took, key=lambda name: (name not in near, self.took.get(name, 0.0)))


def without_types(source: str) -> str:
    """What a program does: annotations and protocols are left out, what keeps others from changing a record (frozen,
    slots) or from giving an argument by its place, whether `zip` is strict, and whether equal numbers and texts are
    compared by `is`, which ruff refuses.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.Call):
            node.keywords = [one for one in node.keywords if one.arg != "strict"]
        elif isinstance(node, ast.arguments):
            node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
            node.defaults = [*node.defaults, *filter(None, node.kw_defaults)]
            node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.Compare):
            node.ops = [EQUAL.get(type(operator), operator) for operator in node.ops]
        elif isinstance(node, ast.ClassDef):
            if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases):
                node.body = [ast.Pass()]
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call):
                    decorator.keywords = []
    return ast.dump(tree)


def coarser(source: str, code: str) -> str:
    """A number over nine is doubled: one more or one less of a wait, a bound or an age is no fault."""
    for old, new in zip(ast.walk(ast.parse(source)), ast.walk(ast.parse(code)), strict=False):
        if type(old) is not type(new):
            break
        if isinstance(old, ast.Constant) and isinstance(new, ast.Constant) and old.value != new.value:
            if type(old.value) in {int, float} and abs(old.value) > 9:
                lines = source.encode().splitlines(keepends=True)
                line = lines[old.lineno - 1]
                doubled = repr(2 * old.value).encode()
                lines[old.lineno - 1] = line[: old.col_offset] + doubled + line[old.end_col_offset :]
                return b"".join(lines).decode()
            break
    return code


def all_of(package: Package, rng: random.Random) -> list[Mutant]:
    """One of each place and kind of change, in a random order."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    operators = {name: get_operator(name)() for name in operator_names() if name.partition("/")[2] not in NOT_HERE}
    chosen = []
    for path in sorted(path for pattern in package.changed for path in ROOT.glob(pattern)):
        counts, kinds = dict.fromkeys(operators, 0), {}
        for node in ast_nodes(get_ast(path.read_text())):
            for name, operator in operators.items():
                for start, _ in operator.mutation_positions(node):
                    kind = start, name.partition("/")[2].split("_")[0]
                    relative = str(path.relative_to(ROOT))
                    kinds.setdefault(kind, []).append(Mutant(package, relative, name, counts[name], start[0]))
                    counts[name] += 1
        chosen += [rng.choice(same) for _, same in sorted(kinds.items())]
    rng.shuffle(chosen)
    return chosen


def changed(mutant: Mutant, source: str) -> str | None:
    """The module with the change; None if it changes nothing that runs."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    with contextlib.suppress(SyntaxError, AttributeError):  # AttributeError: it cannot replace `except sqlite3.Error`
        code = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
        code = code and coarser(source, code)
        if code is None or without_types(code) == without_types(source):
            return None
        lines = [text.splitlines() for text in (source, code)]
        mutant.diff = "\n".join(difflib.unified_diff(*lines, mutant.path, mutant.path, n=1, lineterm=""))
        return code
    return None


class Copy:
    """A tree of its own, in which tests are run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._written = folder, 0
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, folder / name)
        self.environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir()
        self.ready = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants_inside"], cwd=folder, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1,
        )  # fmt: skip

    def close(self) -> None:
        self.ready.communicate()

    def attempt(self, *arguments: str, seconds: float) -> int | None:
        """The exit code of pytest; None when it took too long."""
        assert self.ready.stdin is not None
        assert self.ready.stdout is not None
        self.ready.stdin.write(json.dumps([seconds, *arguments]) + "\n")
        return json.loads(self.ready.stdout.readline())

    def run(self, *command: str, seconds: float, output: Path, **environment: str) -> int | None:
        """The exit code; None when it took too long."""
        with output.open("w") as file, subprocess.Popen(
            [sys.executable, *command], cwd=self.folder, env=self.environment | environment, start_new_session=True,
            stdout=file, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def reached(self, package: Package) -> Reached:
        import coverage

        data, notes = self.folder / f"{package.name.replace('/', '-')}.coverage", self.folder / "took.json"
        source = f"--include={','.join(package.changed)}"
        output = self.folder / "output.txt"
        code = self.run(
            "-m", "coverage", "run", source, f"--data-file={data}", "-m", "pytest", *PYTEST, "--tb=short",
            "-p", "tests.mutants_inside", *package.arguments, seconds=1200, output=output, **{PLUGIN: str(notes)},
        )  # fmt: skip
        if code != 0:
            print(output.read_text()[-8000:])
            raise SystemExit(f"{package.name}: its tests fail without any change (exit code {code})")
        took = json.loads(notes.read_text())
        (self.folder / LIMITS).write_text(json.dumps({name: 5 + PATIENCE * seconds for name, seconds in took.items()}))
        skipped = Path(f"{notes}.skipped")
        for name in skipped.read_text().split("\n") if skipped.exists() else ():
            took.pop(name, None)
        found = coverage.CoverageData(str(data))
        found.read()
        files = {str(Path(name).relative_to(self.folder)): name for name in found.measured_files()}
        quickest = sorted(took, key=lambda name: took[name])[:20]
        if self.attempt(*PYTEST, *quickest, seconds=600) != 0:
            raise SystemExit(f"{package.name}: its tests fail in a fork, without any change: {self.failed()}")
        return Reached(took, {path: found.contexts_by_lineno(name) for path, name in files.items()})

    def write(self, file: Path, code: str) -> None:
        """With a time of its own: bytecode is known by the second and the size, and that of a change must not stay."""
        file.write_text(code)
        self._written += 1
        os.utime(file, (self._written, self._written))

    def failed(self) -> str:
        """The test that failed in the last attempt; empty if the tests could not even be imported."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / FAILED).read_text()
        return ""

    def tried(self, mutant: Mutant, reached: Reached) -> str:
        """killed, hangs or survives. What no test reaches survives.

        `unclear` if without the change, at once after it, the test that failed fails too, or the tests take a third of
        the time in which they did not end.
        """
        file = self.folder / mutant.path
        as_it_was = file.read_text()
        code = changed(mutant, as_it_was)
        if code is None:
            return "nothing"
        tests = reached.tests_of(mutant)
        seconds = 20 + PATIENCE * sum(reached.took.get(name, 0) for name in tests)
        (self.folder / FAILED).unlink(missing_ok=True)
        self.write(file, code)
        try:
            done = self.attempt("-x", *PYTEST, *tests, seconds=seconds)
        finally:
            self.write(file, as_it_was)
        if done == 0:
            return "survives"
        if done is None:
            return "unclear" if self.attempt("-x", *PYTEST, *tests, seconds=seconds / 3) is None else "hangs"
        failed = self.failed()
        reached.noticed.append((mutant.path, mutant.line, failed))
        # a parametrized one may not even exist without the change: that is another exit code
        return "unclear" if failed and self.attempt(*PYTEST, failed, seconds=seconds) in {1, None} else "killed"


def table(possible: dict[str, int], tried: list[Mutant]) -> str:
    rows = ["| package | possible | tried | noticed | of these by hanging | survived | % | unclear |", "|---" * 8 + "|"]
    for name, count in possible.items():
        ends = [mutant.end for mutant in tried if mutant.package.name == name and mutant.end != "nothing"]
        unclear, left, hang = (ends.count(end) for end in ("unclear", "survives", "hangs"))
        ends = [end for end in ends if end != "unclear"]
        share = f"{100 * left / len(ends):.0f}" if ends else "-"
        rows.append(f"| {name} | {count} | {len(ends)} | {len(ends) - left} | {hang} | {left} | {share} | {unclear} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--minutes", type=float, default=15.0, help="in which each package has its share")
    parser.add_argument("--most", type=int, default=10**6, help="changes of a package")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="packages whose name matches")
    parser.add_argument("--again", action="store_true", help="the survivors of the last run, and nothing else")
    asked = parser.parse_args()
    packages = [package for package in PACKAGES if re.search(asked.only, package.name)]
    mutants = {p.name: all_of(p, random.Random(f"{asked.seed} {p.name}")) for p in packages}
    possible = {name: len(found) for name, found in mutants.items()}
    if asked.again:
        last = {tuple(place) for place in json.loads(KEPT.read_text())}
        mutants = {name: [one for one in found if one.place in last] for name, found in mutants.items()}
    share = 60 * asked.minutes * asked.workers / len(packages)
    with (
        tempfile.TemporaryDirectory(prefix="mutants-", dir=MEMORY if MEMORY.is_dir() else None) as top,
        ThreadPoolExecutor(asked.workers) as pool,
    ):

        def attempts(package: Package) -> list[Mutant]:
            """In a copy of its own, until the package's share of the time is up."""
            until = time.monotonic() + share
            copy = Copy(Path(top) / package.name.replace("/", "-"))
            reached, done = copy.reached(package), []
            for mutant in mutants[package.name][: asked.most]:
                if time.monotonic() > until:
                    break
                mutant.end = copy.tried(mutant, reached)
                done.append(mutant)
                if mutant.end == "survives":
                    print(f"\n{package.name}: line {mutant.line}\n{mutant.diff}", flush=True)
                elif mutant.end == "unclear":
                    print(f"\n{package.name}: unclear, as without a change it is so, too: {copy.failed()}", flush=True)
            copy.close()
            print(f"\n{table({package.name: possible[package.name]}, done)}", flush=True)
            return done

        tried = [mutant for done in pool.map(attempts, packages) for mutant in done]
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps([mutant.place for mutant in tried if mutant.end == "survives"]))
    print(f"\nseed {asked.seed}\n\n{table(possible, tried)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
