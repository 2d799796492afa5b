"""README and docs are true: their code runs, their models build, their examples pass."""

from __future__ import annotations

import doctest
import functools
import importlib
import importlib.util
import json
import pkgutil
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import numpy as np
import pytest
import skimage
import torch
from PIL import Image

import graphnet
from graphnet import nn
from graphnet.description import model_schema, parse, parse_text, read_text
from graphnet.errors import DescriptionError
from graphnet.model import Builder, Model
from graphnet.sdk import PASSES, default_registry, load_registry
from graphnet.training import read_job
from graphnet.training.config import read_fields

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/README.md")]
)


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.M | re.S)


def yaml_blocks() -> list[tuple[str, str]]:
    return [
        (f"{path.name}-{i}", text) for path in PAGES for i, text in enumerate(blocks(path, "yaml"))
    ]


def test_readme_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing, layer = blocks(ROOT / "README.md", "python")
    plugin = ModuleType("acme_plugin")
    monkeypatch.setitem(sys.modules, "acme_plugin", plugin)
    exec(layer, plugin.__dict__)
    model = Model(
        {"layers": [{"acme/swish": {"beta": 2.0}}]}, registry=load_registry(plugins=[plugin])
    )
    x = torch.linspace(-2, 2, 12).reshape(1, 3, 2, 2)
    torch.testing.assert_close(model.predict(x), x * torch.sigmoid(2 * x))

    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(importing, namespace)
    image = namespace["image"]
    assert isinstance(image, torch.Tensor)
    assert image.shape == (1, 3, 48, 64)
    assert graphnet.load(tmp_path / "denoiser.safetensors").weights is not None
    assert len([line for line in importing.splitlines() if line.strip()]) <= 15


@functools.cache
def schema() -> jsonschema.Draft202012Validator:
    """The schema of model files; `jsonschema.validate` would check the schema itself each time."""
    return jsonschema.Draft202012Validator(model_schema(default_registry()))


@pytest.mark.parametrize(("name", "text"), yaml_blocks(), ids=[name for name, _ in yaml_blocks()])
def test_yaml_in_the_docs_is_valid(name: str, text: str) -> None:
    data, _ = read_text(text)
    if "layers" in data:
        description = parse_text(text)
        stated = next(iter(description.inputs.values()))
        axes = stated.shape or (stated.channels or 3, 8, 8)
        graph = Model(description).graph((1, *(x if isinstance(x, int) else 8 for x in axes)))
        assert graph.outputs
        schema().validate(data)
    else:
        read_fields(data)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "denoisers").glob("*.yaml")), ids=lambda p: p.name
)
def test_example_files_are_valid(path: Path) -> None:
    data, _ = read_text(path.read_text())
    if "layers" in data:
        assert Model.load(path).divisor() >= 1
        schema().validate(data)
    else:
        config, *_ = read_fields(data)
        assert Model.load(path.parent / str(config.model)).divisor() >= 1


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "tasks").glob("*.yaml")), ids=lambda p: p.name
)
def test_files_of_tasks_are_valid(path: Path) -> None:
    data, _ = read_text(path.read_text())
    if "layers" in data:
        schema().validate(data)
    else:
        read_fields(data)


def test_schema_refuses_what_the_reader_refuses() -> None:
    jsonschema.Draft202012Validator.check_schema(schema().schema)
    relu = {"layers": ["relu"]}
    for bad in (
        3,
        {},
        {**relu, "name": 3},
        {**relu, "input": {"channels": 0}},
        {**relu, "input": {"channels": 1.5}},
        {**relu, "input": {"depth": 3}},
        {**relu, "input": {"shape": [0]}},
        {**relu, "input": {"shape": "time"}},
        {**relu, "input": {"dtype": "int46"}},
        {**relu, "inputs": {}},
        {**relu, "inputs": {"x": [3]}},
        {**relu, "outputs": []},
        {**relu, "outputs": [3]},
        {**relu, "blocks": {"twice": {}}},
        {**relu, "blocks": {"twice": {"layers": ["relu"], "arguments": [3]}}},
        {**relu, "blocks": {"twice": {"layers": ["relu"], "share": "a"}}},
        {"layers": [{"relu": {}, "id": "a b"}]},
        {"layers": [{"relu": {}, "inputs": 3}]},
        {"layers": [{"relu": {}, "share": ["a"]}]},
        {"layers": [{"relu": []}]},
        {"layers": [3]},
        {"layers": None},
        {"layers": [{"conv2d": {"kernel_size": 3}}]},
        {"layers": [{"conv2d": {"out_channels": "many", "kernel_size": 3}}]},
        {"layers": [{"conv2d": {"out_channels": 1, "kernel_size": 3, "strid": 2}}]},
        {"layers": []},
        {"layerz": ["relu"]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            schema().validate(bad)
        with pytest.raises(DescriptionError):
            Model(bad)  # type: ignore[arg-type]


def test_schema_accepts_what_the_reader_accepts() -> None:
    for good in (
        {"layers": ["relu"], **dict.fromkeys(("name", "input", "inputs", "blocks", "outputs"))},
        {"layers": [{"relu": None, "id": None, "inputs": None, "share": None}]},
        {"layers": [{"relu": {}, "id": "a", "inputs": "$x"}], "inputs": {"x": None}},
        {"layers": [{"relu": {}, "inputs": ["$input"]}], "input": {"channels": None}},
        {"layers": [{"one": {"n": 3}}], "outputs": "one_1",
         "blocks": {"one": {"layers": [{"split": {"dim": 1}}], "arguments": {"n": 1}, "outputs": "split_1"}}},
    ):  # fmt: skip
        schema().validate(good)
        assert parse(parse(good).to_data()) == parse(good)


def test_links_in_the_docs_lead_somewhere() -> None:
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize(
    "path",
    [*PAGES, *ROOT.glob("plugins/*/README.md"), ROOT / "CONTRIBUTING.md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_each_table_of_a_page_has_a_head(path: Path) -> None:
    """A table that an empty line divides is shown as text from there on."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        head, line, *_ = [*table.splitlines(), "", ""]
        assert re.fullmatch(r"(\|[ :]*-+[ :]*)+\|", line), f"no head: {head}"


MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(graphnet.__path__, "graphnet.")
    if not name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what lives there"
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch})
    assert failed == 0


@pytest.mark.parametrize("room", ["", "sdk", "builtin", "nn", "bridges", "testing"])
def test_public_names_have_an_example(room: str) -> None:
    module = importlib.import_module(f"graphnet.{room}".rstrip("."))
    values = {name: getattr(module, name) for name in module.__all__}
    public = {
        name: value
        for name, value in values.items()
        if callable(value)
        and (value.__module__ or "").startswith("graphnet")
        and not (isinstance(value, type) and issubclass(value, Exception))
    }
    assert public
    texts = {name: doc_and_methods(value) for name, value in public.items()}
    shown = re.compile(r">>>|^ +(class|@)", re.M)
    missing = [name for name, text in texts.items() if not shown.search(text)]
    assert [name for name in missing if not texts[name].startswith("Base of")] == []


def doc_and_methods(value: Any) -> str:
    """The docstrings of a function, or of a class and its methods."""
    methods = vars(value).values() if isinstance(value, type) else ()
    return "\n".join(str(getattr(one, "__doc__", "")) for one in (value, *methods))


def test_importing_example_runs_and_learns() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "importing.py")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", done.stdout)]
    assert losses[-1] < 0.8 * losses[0]


Example = Callable[..., int]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    """Runs a script of examples/ in this process and in an empty folder; returns its exit status."""

    def run(name: str, *arguments: str) -> int:
        main = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        return int(main())

    monkeypatch.chdir(tmp_path)
    return run


def test_quality_example_gives_the_numbers_of_scikit_image(
    tmp_path: Path, example: Example, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("coffee.png", "chelsea.png"):
        with Image.open(Path(skimage.__file__).parent / "data" / name) as photo:
            photo.crop((100, 100, 228, 196)).save(photos / name)
    assert example("quality", "photos", "--std", "25") == 0
    (row,) = json.loads((tmp_path / "runs" / "quality" / "report.json").read_text())["rows"]
    assert row["psnr_db_apart"] < 0.01
    assert row["ssim_apart"] < 0.001
    assert row["psnr_db"] > row["noisy_db"] + 8.0
    with Image.open(tmp_path / "runs" / "quality" / "strip.png") as strip:
        assert strip.size == (3 * 2 * 128, 2 * 96)
    assert f"{row['psnr_db']:.2f}" in capsys.readouterr().out
    assert example("quality", "photos", "--model", "absent.safetensors") == 2


RECIPES = sorted((ROOT / "examples" / "denoisers").glob("*-train.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid_and_in_the_table(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the data lies that some of them name by a bare path
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (256, 256)).save(tmp_path / "photos" / "black.png")
    black = np.zeros((1, 3, 32, 32), np.uint8)
    np.savez(tmp_path / "pairs.npz", noisy=black, clean=black)
    job = read_job(path, settings=[], registry=default_registry())
    assert job.model.input_channels in (1, 3, 4)
    assert f"[{path.name}]({path.name})" in (path.parent / "README.md").read_text()


def test_microscopy_example_measures_every_way_to_denoise(
    tmp_path: Path, example: Example, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.asarray(
        Image.open(Path(skimage.__file__).parent / "data" / "coffee.png").convert("L")
    )
    average = np.stack([pixels[100:148, 200:264], pixels[200:248, 300:364]]) / 255.0
    noise = np.random.default_rng(0).normal(0, 0.1, average.shape)
    gains = np.array([0.5, 0.8])[:, None, None]  # exposures differ
    np.savez(tmp_path / "pairs.npz", noisy=gains * (average + noise) + 0.1, average=average)
    quick = ["data.train.patches.per_epoch=400", "data.train.patches.size=32", "batch_size=4"]
    settings = [part for setting in quick for part in ("--set", setting)]
    assert example("microscopy", "pairs.npz", "--images", "1", *settings) == 0
    report = json.loads((tmp_path / "runs" / "microscopy" / "report.json").read_text())
    (row,) = report["rows"]
    signal = average[
        0
    ].var()  # fitted to it, noise of 0.1 leaves this of the error, whatever the gain
    expected_db = -10 * np.log10(0.01 * signal / (0.01 + signal))
    assert row["noisy"] == pytest.approx(expected_db, abs=0.3)
    others = {name: row[name] for name in ("non-local means", "wavelets", "total variation")}
    assert min(others.values()) > row["noisy"] + 1.0
    assert report["best_other"] == max(others, key=lambda name: others[name])
    assert row["graphnet"] > row["noisy"] + 0.5
    with Image.open(tmp_path / "runs" / "microscopy" / "strip.png") as strip:
        assert strip.size == (4 * 2 * 64, 2 * 48)
    np.savez(tmp_path / "flat.npz", noisy=average[0], average=average[0])
    for file in ("flat.npz", "absent.npz"):
        assert example("microscopy", file) == 2
        assert file in capsys.readouterr().err


def test_builder_example_in_its_module_is_a_model() -> None:
    net = Builder(channels=3)
    x = net("conv2d", net.input, out_channels=64, kernel_size=3, padding=1)
    net.outputs(net("concat", x, net("relu", x)))
    assert net.model().predict(torch.rand(1, 3, 4, 4)).shape == (1, 128, 4, 4)


# -- the course's interface --------------------------------------------------------------------------


@pytest.fixture
def course() -> ModuleType:
    path = ROOT / "examples" / "ee559" / "Miniproject_2" / "model.py"
    spec = importlib.util.spec_from_file_location("course_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_course_model_trains_and_predicts_without_autograd(course: ModuleType) -> None:
    torch.set_grad_enabled(False)
    try:
        torch.manual_seed(0)
        model = course.Model()
        x = torch.randint(0, 256, (70, 3, 32, 32), dtype=torch.uint8)
        before = model.predict(x[:4])
        model.train(x, x, num_epochs=1)
        after = model.predict(x[:4])
        assert before.shape == after.shape == (4, 3, 32, 32)
        assert not torch.equal(before, after)
        for size in ((512, 512), (33, 47), (1, 1)):
            y = model.predict(torch.randint(0, 256, (1, 3, *size)).float())
            assert y.shape == (1, 3, *size)
            assert 0 <= float(y.min()) <= float(y.max()) <= 255
        model.load_pretrained_model()
        assert model.predict(x[:4]).shape == (4, 3, 32, 32)
    finally:
        torch.set_grad_enabled(True)
    assert course.Sequential is nn.Sequential
    path = Path(str(course.__file__))
    assert len(path.read_text().splitlines()) <= 50


def test_pretrained_course_model_denoises(course: ModuleType) -> None:
    pairs = ROOT.parent / "shared" / "data" / "ee559_val.npz"
    if not pairs.exists():
        pytest.skip("needs shared/data/ee559_val.npz, which is not part of the project")
    import numpy as np

    with np.load(pairs) as data:
        noisy, clean = (torch.from_numpy(data[key]).float() for key in ("noisy", "clean"))
    model = course.Model()
    model.load_pretrained_model()
    error = ((model.predict(noisy) - clean) / 255).square().mean((1, 2, 3))
    assert float((-10 * error.log10()).mean()) >= 24.2


def test_changelog_and_licence_are_there() -> None:
    assert "0.1.0" in (ROOT / "CHANGELOG.md").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert json.dumps(graphnet.__doc__)


def test_code_of_the_page_on_compiling_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = ROOT / "docs" / "compiling.md"
    namespace: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(block, namespace)
    listed = re.findall(r"^\| ([a-z0-9_, ]+) \|", page.read_text(), flags=re.M)
    named = [name for row in listed for name in row.split(", ") if name != "pass"]
    assert sorted(named) == sorted(PASSES)
