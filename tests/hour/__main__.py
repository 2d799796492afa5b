"""A newcomer's hour: a plugin with one of each kind, from `graphnet plugins new` to a training with it all.

`python -m tests.hour [FOLDER]` makes a fresh environment in a folder, builds wheels of graphnet and of the
plugin, and installs them there. The plugin is what `graphnet plugins new` writes, and the examples of the
docs: each becomes a module of its package, as a newcomer copies them. It prints each step and what was seen.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.hour.fresh import ROOT, Fresh

HERE = Path(__file__).parent
NAME, MODULE = "acme-hour", "acme_hour"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
TITLED = re.compile(r'^```\w+ title="([^"/]+)"\n(.*?)^```', re.M | re.S)

ADDED = {  # kind -> what the plugin registers of it, and the example of the docs that does
    "layers": {"acme/hour": "", "acme/halve": "halved.py", "acme/scaled": "acme_softsign.py"},
    "losses": {"acme/log_cosh": "acme_log_cosh.py"},
    "kernels": {"acme/halve_native": "halved.py"},
    "optimizers": {"acme/lion": "acme_lion.py"},
    "schedules": {"halve": "acme_steps.py"},
    "executors": {"acme/timed": "acme_timed.py"},
    "datasets": {"tensor_pairs": "acme_tensors.py"},
    "metrics": {"within": "acme_within.py"},
    "reporters": {"acme/stop_when_slow": "acme_slow.py"},
    "readers": {".lines": "acme_lines.py"},
    "writers": {".npz": "acme_npz.py"},
    "operators": {"aten.erf.default": "acme_softsign.py"},
    "passes": {"acme/skip_empty_dropout": "acme_dropout.py"},
    "commands": {"count-weights": "acme_count.py"},
    "kinds": {"acme_filters": "acme_filters.py"},
    "acme_filters": {"double": "acme_filters.py"},
}
CHECKED = ("layers", "losses", "kernels", "optimizers")  # kinds that the conformance kit checks
WITH_THEM = ("halved.cpp", "acme_count_command.py")  # files of the docs that other ones need

PAIRS = """
import torch
from safetensors.torch import save_file

draw = torch.Generator().manual_seed(0)
images = torch.rand(64, 3, 16, 16, generator=draw)
noisy = images + 0.1 * torch.randn(images.shape, generator=draw)
save_file({"input": noisy, "target": images}, "pairs.safetensors")
"""
TIMED = """
import json
from pathlib import Path
from graphnet.model import read_checkpoint

print(json.dumps(read_checkpoint(Path("run/checkpoint.safetensors")).training["executor"]))
"""
LOADED = """
import torch
import graphnet as gn

class Erf(torch.nn.Module):
    def forward(self, x):
        return torch.erf(x)

print([node.layer for node in gn.load("net.lines").description.layers])
print([node.layer for node in gn.from_torch(Erf(), (2, 3)).description.layers])
trained = gn.load("run/model.safetensors")
print(trained.predict(torch.rand(1, 3, 16, 16)).shape)
"""


@dataclass
class Seen:
    """What was looked for, and how much of it was seen."""

    looked_for: int = 0
    seen: int = 0

    def __call__(self, what: str, is_there: bool) -> None:
        """Print one thing that was looked for."""
        self.looked_for += 1
        self.seen += is_there
        print(f"    {'seen   ' if is_there else 'MISSING'}  {what}", flush=True)


def examples() -> dict[str, str]:
    """The titled files of the docs, by title."""
    return {title: text for page in PAGES for title, text in TITLED.findall(page.read_text())}


def install(fresh: Fresh, seen: Seen) -> None:
    """graphnet's wheel is built from the repository and installed."""
    source = fresh.folder / "source"
    shutil.copytree(
        ROOT / "graphnet", source / "graphnet", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    fresh.run(
        *("pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"),
        *("--wheel-dir", "wheels", str(source)),
    )
    fresh.run("pip", "install", "--quiet", "--find-links", "wheels", "graphnet-framework")
    fresh.run("pip", "check")
    where = fresh.run("python", "-c", "import graphnet; print(graphnet.__file__)").strip()
    seen(f"graphnet is imported from {where}", str(fresh.folder / "venv") in where)


def write_plugin(fresh: Fresh, seen: Seen) -> None:
    """A project is written, and the examples of the docs become modules of its package."""
    print(fresh.run("graphnet", "plugins", "new", NAME))
    project = fresh.work / NAME
    package = project / "src" / MODULE
    shown = examples()
    titles = sorted({title for names in ADDED.values() for title in names.values() if title})
    for title in (*titles, *WITH_THEM):
        # What names a module by its full name is in a package now.
        text = shown[title].replace('"acme_count_command:', f'"{MODULE}.acme_count_command:')
        (package / title).write_text(text)
    settings = project / "pyproject.toml"
    own = f'{NAME} = "{MODULE}"\n'
    stems = [Path(title).stem for title in titles]
    more = "".join(f'{stem.replace("_", "-")} = "{MODULE}.{stem}"\n' for stem in stems)
    text = settings.read_text()
    settings.write_text(text.replace(own, own + more))
    seen("the entry point in pyproject.toml, to which others are added", own in text)


def build(fresh: Fresh, seen: Seen) -> None:
    """The plugin's wheel is built and installed, and its project is deleted."""
    fresh.run(
        *("pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", "wheels"),
        f"./{NAME}",
    )
    fresh.run("pip", "install", "--quiet", "--find-links", "wheels", NAME)
    shutil.rmtree(fresh.work / NAME)
    (wheel,) = (fresh.work / "wheels").glob(f"{MODULE}-*.whl")
    seen(
        f"{wheel.name}, installed",
        f"{NAME} 0.1.0" in fresh.run("pip", "list", "--format=freeze").replace("==", " "),
    )


def list_plugins(fresh: Fresh, seen: Seen) -> None:
    """`graphnet plugins` lists all that the plugin registers, as text and as JSON."""
    text = fresh.run("graphnet", "plugins")
    mine = [
        p
        for p in json.loads(fresh.run("graphnet", "plugins", "--json"))
        if p["distribution"] == NAME
    ]
    for kind, names in ADDED.items():
        listed = {name for plugin in mine for name in plugin["adds"].get(kind, ())}
        for name in names:
            in_text = re.search(rf"^    {kind}: .*{re.escape(name)}", text, re.M) is not None
            seen(f"{kind}: {name}, in the text and in the JSON", name in listed and in_text)
    broken = [f"{p['name']}: {p['error']}" for p in mine if p["status"] != "loaded"]
    seen(f"no broken plugin{': ' if broken else ''}{'; '.join(broken)}", not broken)


def check(fresh: Fresh, seen: Seen) -> None:
    """`graphnet check` runs the conformance checks on all of the plugin that can be checked."""
    print(fresh.run("graphnet", "check", NAME))
    rows = json.loads(fresh.run("graphnet", "check", "--json", NAME))
    by_name = {row["layer"]: row for row in rows}
    for kind in CHECKED:
        for name in ADDED[kind]:
            row = by_name[name]
            levels = [level["level"] for level in row["levels"] if level["reached"]]
            seen(f"{name}: {row['ran']} checks, {', '.join(levels)}", row["ok"])


def train(fresh: Fresh, seen: Seen) -> None:
    """One training uses all of them, and its log says so."""
    for name in ("net.lines", "train.yaml"):
        shutil.copy(HERE / name, fresh.work)
    (fresh.work / "pairs.py").write_text(PAIRS)
    fresh.run("python", "pairs.py")
    print(fresh.run("graphnet", "train", "train.yaml", "--run", "run"))
    log = [json.loads(line) for line in (fresh.work / "run" / "log.jsonl").read_text().splitlines()]
    start, *records = log
    steps = [record for record in records if record["kind"] == "steps"]
    epochs = [record for record in records if record["kind"] == "epoch"]
    config, kernels = start["config"], start["kernels"]
    seen("the model is read by the reader of .lines", config["model"] == "net.lines")
    seen("tensor_pairs has the data", "tensor_pairs" in config["data"]["train"])
    for node, layer in (
        ("hour_1", "acme/hour"),
        ("scaled_1", "acme/scaled"),
        ("halve_1", "acme/halve [acme]"),  # the kernel in C++
        ("@loss", "acme/log_cosh"),
    ):
        seen(f"{node} is computed by {kernels.get(node)}", kernels.get(node) == layer)
    seen("acme/lion updates the weights", "acme/lion" in config["optimizer"])
    left_out = "acme/skip_empty_dropout" in start["passes"] and "dropout_1" not in kernels
    seen("acme/skip_empty_dropout changed the plan", left_out)
    rates = [record["lr"] for record in steps]
    seen(f"halve gives the rates {rates}", rates[0] == 2 * rates[1] == 4 * rates[2])
    within = [round(record["metrics"]["within"], 3) for record in epochs]
    seen(f"within rises: {within}", within == sorted(within))
    losses = [round(record["loss"], 3) for record in epochs]
    seen(f"acme/log_cosh falls: {losses}", losses == sorted(losses, reverse=True))
    elapsed_s = json.loads(fresh.run("python", "-c", TIMED))["elapsed_s"]
    seen(f"acme/timed measured {elapsed_s:.2f} s, in the checkpoint", elapsed_s > 0)


def stop(fresh: Fresh, seen: Seen) -> None:
    """The reporter stops a training that is too slow for it, and the log says why."""
    slow = "reporters=[{acme/stop_when_slow: {least: 1.0e+9}}]"
    fresh.run("graphnet", "train", "train.yaml", "--run", "slow", "--set", slow)
    last = json.loads((fresh.work / "slow" / "log.jsonl").read_text().splitlines()[-1])
    seen(f"the last record has the reason: {last.get('reason')}", last["kind"] == "stopped")


def use(fresh: Fresh, seen: Seen) -> None:
    """The command runs, and Python reads files by the plugin's reader."""
    weights = 8 * 3 * 9 + 8 + 1 + 3 * 8 * 9 + 3
    seen(
        f"count-weights prints {weights}",
        fresh.run("graphnet", "count-weights", "net.lines") == f"{weights}\n",
    )
    exported = fresh.run(
        *("graphnet", "export", "run/model.safetensors", "-o", "net.npz"),
        *("--input", "1x3x16x16", "--set", "compressed=true"),
    ).strip()
    seen(f"the writer writes: {exported}", exported.endswith("weights only"))
    (fresh.work / "loaded.py").write_text(LOADED)
    names, traced, shape = fresh.run("python", "loaded.py").splitlines()
    seen(f"gn.load reads net.lines: {names}", "acme/hour" in names)
    seen(f"gn.from_torch uses the operator's row: {traced}", traced == "['acme/scaled']")
    seen(f"the trained model predicts: {shape}", "[1, 3, 16, 16]" in shape)


def readme(fresh: Fresh, seen: Seen) -> None:
    """The examples of the README run, in a folder that has the files which they name."""
    place = fresh.work / "examples" / "denoisers"
    place.mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "denoisers" / "seed.yaml", place)
    text = (ROOT / "README.md").read_text()
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S), 1):
        (fresh.work / f"readme_{number}.py").write_text(code)
        printed = fresh.run("python", f"readme_{number}.py")
        first = printed.partition("\n")[0]
        seen(
            f"README's example {number} runs, and prints {first!r}",
            "print(" not in code or bool(first),
        )
    (model,) = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    (fresh.work / "readme.yaml").write_text(model)
    plan = fresh.run("graphnet", "explain", "readme.yaml", "--input", "32x3x32x32", "--training")
    seen("README's model is explained", "concat" in plan)
    shutil.copy(ROOT / "examples" / "importing.py", fresh.work)
    seen("examples/importing.py trains", "step 20: loss" in fresh.run("python", "importing.py"))


def types(fresh: Fresh, seen: Seen) -> None:
    """A script over all public names has types that mypy accepts, and runs."""
    shutil.copy(HERE / "user_script.py", fresh.work)
    found = fresh.run("python", "-m", "mypy", "--strict", "user_script.py").strip()
    seen(f"mypy --strict: {found}", found.startswith("Success"))
    seen("no `type: ignore`", "type: ignore" not in (HERE / "user_script.py").read_text())
    ran = fresh.run("python", "user_script.py").splitlines()[-1]
    seen(f"the script runs: {ran}", len(ast.literal_eval(ran.removeprefix("losses "))) == 2)


STEPS: Mapping[str, Callable[[Fresh, Seen], None]] = {
    "install graphnet": install,
    "write a plugin": write_plugin,
    "build and install it": build,
    "list it": list_plugins,
    "check it": check,
    "train with all of it": train,
    "stop by the reporter": stop,
    "use it": use,
    "run the examples of the README": readme,
    "check the types of a user's script": types,
}


def main(folder: Path) -> int:
    """Run all steps, and return the exit status: 0 if all was seen."""
    started = time.perf_counter()
    seen = Seen()
    print(f"Python {sys.version.split()[0]}, in {folder}")
    fresh = Fresh(folder)
    for title, step in STEPS.items():
        print(f"\n{title}", flush=True)
        began = time.perf_counter()
        step(fresh, seen)
        print(f"    ({time.perf_counter() - began:.0f} s)")
    took_s = time.perf_counter() - started
    print(f"\n{seen.seen} of {seen.looked_for} seen, in {took_s:.0f} s")
    return int(seen.seen != seen.looked_for)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(main(Path(sys.argv[1]).resolve()))
    with tempfile.TemporaryDirectory() as place:
        sys.exit(main(Path(place)))
