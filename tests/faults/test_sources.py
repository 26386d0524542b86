"""Things that the sources never do: unpickle, run text, order things by time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import ROOT

SOURCES = sorted([*ROOT.glob("*.py"), *ROOT.glob("common/**/*.py")])
UNPICKLERS = {"pickle", "cPickle", "_pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
# To notice that a file has changed, and to say how old a lock is; never for order.
ALLOWED = {
    "model/checkpoints.py": ["asks for st_mtime_ns"],
    "experiments/predictions.py": ["asks for st_mtime_ns"],
    "locks.py": ["calls time.time", "asks for st_mtime"],
}
CLOCKS = {"st_mtime", "st_mtime_ns", "st_ctime", "getmtime", "utime", "utcnow", "now"}


def offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            yield from (f"imports {name}" for name in names if name.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            yield f"asks for {node.attr}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in ("eval", "exec", "compile", "__import__", "time.time", "os.system"):
                yield f"calls {called}"
            if called == "torch.load" and given.get("weights_only") != "True":
                yield "loads without weights_only=True"
            if called.endswith("np.load") and given.get("allow_pickle") != "False":
                yield "loads without allow_pickle=False"
            if given.get("allow_pickle", "False") != "False" or given.get("shell") == "True":
                yield f"calls {called} with {given}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_run(path: Path) -> None:
    allowed = ALLOWED.get(str(path.relative_to(ROOT)).removeprefix("common/"), [])
    assert sorted(offences(ast.parse(path.read_text()))) == sorted(allowed)


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from joblib import load", "torch.load(p)",
     "torch.load(p, weights_only=False)", "np.load(p)", "np.load(p, allow_pickle=True)", "eval(x)",
     "exec(x)", "time.time()",
     "path.stat().st_mtime", "run(x, shell=True)"],
)  # fmt: skip
def test_it_would_be_noticed(text: str) -> None:
    assert list(offences(ast.parse(text)))
