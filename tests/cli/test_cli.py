"""The command line, as a user meets it: exit status, messages, and no traceback.

Commands run in this process, but for those that are interrupted, killed, or print to somebody who went away.
"""

from __future__ import annotations

import ast
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest

from graphnet import cli
from graphnet.cli import run, stop_requested
from graphnet.cli.options import parse_shape
from graphnet.errors import GraphnetError, InputError
from graphnet.testing import Report, Row, Status
from graphnet.training import Decided, Trainer

ROOT = Path(__file__).parents[2]
SEED = ROOT / "examples" / "denoisers" / "seed.yaml"

CONFIG = """
model: {model}
data: {{train: {pairs}, validation: {pairs}}}
loss: mse
optimizer: {{sgd: {{lr: 1.0}}}}
epochs: 2
batch_size: 8
device: cpu
metrics: [psnr]
"""


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def graphnet(*arguments: object, cwd: Path | None = None) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with chdir(cwd or Path.cwd()), redirect_stdout(out), redirect_stderr(err):
        status = run([str(argument) for argument in arguments])
    return Done(status, out.getvalue(), err.getvalue())


def spawn(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "graphnet", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def fails(*arguments: object, cwd: Path | None = None) -> str:
    """The message of a command that must fail in words: status 2, nothing on stdout."""
    done = graphnet(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert "unexpected" not in done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.fixture(autouse=True)
def _heard_signals() -> Iterator[None]:
    """No signal is ignored, as SIGINT is in programs that a script starts in the background."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.getsignal(number) for number in usual}
    for number, handler in before.items():
        if handler == signal.SIG_IGN:
            signal.signal(number, usual[number])
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    clean = draw.integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "pairs.npz", noisy=clean, clean=clean)
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG.format(model=SEED, pairs=tmp_path / "pairs.npz"))
    return path


def test_train_writes_log_checkpoint_and_model_and_explain_reads_it(config: Path) -> None:
    folder = config.parent / "run"
    done = graphnet("train", config, "--run", folder)
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stderr
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [record["kind"] for record in records] == ["start", "steps", "epoch", "steps", "epoch"]
    assert records[0]["kernels"]["relu_1"] in ("conv2d_relu [gemm]", "conv2d_relu [patch]")
    assert records[0]["versions"]["layers"]["conv2d"] == {
        "version": 1,
        "plugin": "graphnet-framework",
    }
    assert records[-1]["step"] == 16
    assert 0 < records[-1]["metrics"]["psnr"] < 30
    explained = graphnet(
        "explain", folder / "model.safetensors", "--input", "2x3x8x8", "--training"
    )
    assert "conv2d_1.weight" in explained.stdout
    assert "20 steps, 132,995 parameters in 8 tensors" in explained.stdout
    assert "already holds a run" in fails("train", config, "--run", folder)


def test_verify_names_damaged_files_and_goes_on(config: Path) -> None:
    folder = config.parent / "run"
    assert graphnet("train", config, "--run", folder, "--epochs", "1").returncode == 0
    checkpoint, model = folder / "checkpoint.safetensors", folder / "model.safetensors"
    done = graphnet("verify", checkpoint, model)
    assert (done.returncode, done.stderr) == (0, "")
    for line, path in zip(done.stdout.splitlines(), (checkpoint, model), strict=True):
        size = path.stat().st_size / 1024
        assert line == f"{path}: as it was written (8 tensors, {size:.1f} KiB)"
    data = bytearray(checkpoint.read_bytes())
    data[-100] ^= 8
    checkpoint.write_bytes(data)
    done = graphnet("verify", checkpoint, folder / "none.safetensors", model)
    assert done.returncode == 1
    damaged, missing = done.stderr.splitlines()
    assert f"{checkpoint}: damaged: the tensor 'model/" in damaged
    assert "none.safetensors: no such file" in missing
    assert done.stdout.startswith(f"{model}: as it was written")


def test_resuming_over_fewer_pairs_is_refused(config: Path) -> None:
    """Eight pairs are a step an epoch: counted so, the run would be at its end already."""
    folder = config.parent / "run"
    assert graphnet("train", config, "--run", folder).returncode == 0
    assert graphnet("train", config, "--run", folder, "--resume").returncode == 0
    with np.load(config.parent / "pairs.npz") as pairs:
        fewer = {name: pairs[name][:8] for name in pairs.files}
    np.savez(config.parent / "pairs.npz", **fewer)
    message = fails("train", config, "--run", folder, "--resume")
    assert "it had 64 pairs of 3x8x8 and 3x8x8, now it has 8 pairs" in message
    assert "or start a new run" in message


def test_settings_reach_into_lists_and_a_models_name_is_no_path(config: Path) -> None:
    text = config.read_text().replace("loss: mse", "loss: [mse, {l1: {}, weight: 0.5}]")
    config.write_text(text.replace(f"model: {SEED}", "model: {name: ../../out, layers: [sigmoid]}"))
    done = graphnet("train", config, "--set", "loss.1.weight=0.25", cwd=config.parent)
    assert done.returncode == 0, done.stderr
    (folder,) = (config.parent / "runs").iterdir()
    start = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    assert start["config"]["loss"] == ["mse", {"l1": {}, "weight": 0.25}]
    message = fails("train", config, "--set", "loss.2.weight=1")
    assert "--set loss.2.weight: expected an item's number below 2, found '2'" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_stops_with_a_checkpoint_and_its_status_and_resume_finishes(
    config: Path, number: int, status: int
) -> None:
    folder = config.parent / "run"
    process = spawn("train", config, "--run", folder, "--set", "epochs=100000")
    while not (folder / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    stopped = int(errors.split("stopped after step ")[1].split(";")[0])
    assert stopped >= 8
    assert "continue with --resume" in errors
    assert "another configuration: batch_size differ" in fails(
        "train", config, "--run", folder, "--resume", "--set", "batch_size=4"
    )
    epochs = f"epochs={stopped // 8 + 2}"
    done = graphnet("train", config, "--run", folder, "--resume", "--set", epochs)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        "checkpoint.safetensors",
        "checkpoint-1.safetensors",
        "log.jsonl",
        "model.safetensors",
    }


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_imports_ends_the_command_with_its_status(
    config: Path, number: int, status: int
) -> None:
    process = spawn("train", config, "--run", config.parent / "run")
    time.sleep(0.5)  # torch takes longer than that to be imported
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    # -number: before Python could set a handler
    assert process.returncode in (status, -number), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("raised", [ImportError, GraphnetError, click.Abort, click.UsageError])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_error_that_an_import_raises_from_a_signal_is_the_signals(
    raised: type[Exception], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def command() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise raised("an import was interrupted") from error

    monkeypatch.setattr(cli, "graphnet", command)
    done = graphnet()
    assert done == Done(128 + number, "", "interrupted\n")


def test_an_import_ends_before_a_signal_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """C++ code that is imported, as torch's, may end the process if Python raises within it."""
    (tmp_path / "imported_slowly.py").write_text(
        "import signal, time\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "time.sleep(0.2)  # the signal comes again\n"
        "whole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    @click.command()
    def command() -> None:
        importlib.import_module("imported_slowly")
        time.sleep(10)
        raise AssertionError("the work has begun")

    monkeypatch.setattr(cli, "graphnet", command)
    assert graphnet() == Done(143, "", "\ninterrupted\n")
    assert sys.modules["imported_slowly"].whole


def test_nothing_is_printed_where_python_itself_has_taken_a_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Ends:
        def __del__(self) -> None:  # cannot raise
            signal.raise_signal(signal.SIGTERM)

    @click.command()
    def command() -> None:
        Ends()
        with stop_requested():
            raise AssertionError("the work has begun")

    monkeypatch.setattr(cli, "graphnet", command)
    assert graphnet() == Done(143, "", "\ninterrupted\n")  # click ends the line of a ^C
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_an_import_has_taken_ends_the_command_before_its_work(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def command() -> None:
        with suppress(BaseException):  # as packages have it around their imports
            signal.raise_signal(number)
        with stop_requested():
            raise AssertionError("the work has begun")

    monkeypatch.setattr(cli, "graphnet", command)
    assert graphnet() == Done(128 + number, "", "\ninterrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_work_that_could_stop_between_steps(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def command() -> None:
        with stop_requested() as stop:
            signal.raise_signal(number)
            assert stop
            signal.raise_signal(number)

    monkeypatch.setattr(cli, "graphnet", command)
    assert graphnet().returncode == 128 + number


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "ImportError"])
def test_ctrl_c_while_the_commands_code_is_imported(raised: str, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(
        "try:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt as error:\n"
        f"    raise {raised} from error\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "graphnet", "--version"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_training_goes_on_when_nobody_reads_its_messages(config: Path) -> None:
    for number, end in enumerate((">&- 2>&-", "2>&1 | head -c 1 > /dev/null")):
        folder = config.parent / f"run{number}"
        command = f"{sys.executable} -m graphnet train {config} --run {folder} {end}"
        command += "; exit ${PIPESTATUS[0]}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, done
        assert (folder / "model.safetensors").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_training_under_nohup_outlives_its_terminal(config: Path) -> None:
    folder = config.parent / "run"
    code = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    code += "from graphnet.cli import main; main(sys.argv[1:])"
    arguments = ["train", config, "--run", folder, "--epochs", "50"]
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])
    while not (folder / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    assert (folder / "model.safetensors").exists()


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_weights(config: Path) -> None:
    settings = ["--set", "epochs=40"]
    whole, killed = config.parent / "whole", config.parent / "killed"
    assert graphnet("train", config, "--run", whole, *settings).returncode == 0
    process = spawn("train", config, "--run", killed, *settings)
    while not (killed / "checkpoint.safetensors").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert graphnet("train", config, "--run", killed, *settings, "--resume").returncode == 0
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    steps = [
        json.loads(line).get("step") for line in (killed / "log.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)


def test_bad_input_is_one_sentence_and_status_2(config: Path, tmp_path: Path) -> None:
    def train(text: str, *arguments: object) -> str:
        path = tmp_path / "bad.yaml"
        path.write_text(text)
        return fails("train", path, "--run", tmp_path / "never", *arguments)

    good = config.read_text()
    assert f"error: {tmp_path}/none.yaml: cannot be read: No such file" in fails(
        "train", tmp_path / "none.yaml"
    )
    assert "bad.yaml:5:12: optimizer: unknown optimizer 'sdg'. Did you mean 'sgd'?" in train(
        good.replace("sgd", "sdg")
    )
    assert "bad.yaml:6:9: epochs: expected integer, found 'two'" in train(
        good.replace("epochs: 2", "epochs: two")
    )
    assert "error: --set data.train: data.train: nowhere: no such file or folder" in train(
        good, "--set", "data.train=nowhere"
    )
    message = train(good, "--set", 'optimizer={"sgd":{"lr":"a lot"}}')
    assert "error: --set optimizer: optimizer.sgd.lr: expected number, found 'a lot'" in message
    message = train(good, "--set", "optimizer.sgd.lr=-1")
    assert "error: --set optimizer.sgd.lr: optimizer.sgd.lr: expected" in message
    assert "expected --set PATH=VALUE" in train(good, "--set", "epochs")
    assert "has no CUDA devices" in train(good, "--device", "cuda:7")
    assert "--executor: executor: unknown executor 'fast'" in train(good, "--executor", "fast")
    assert "unknown kernels 'atten'. Did you mean 'aten'?" in train(good, "--kernels", "atten")
    assert "the loss is nan" in train(good, "--set", "optimizer.sgd.lr=1e30")
    assert "never/log.jsonl" not in [str(p) for p in tmp_path.rglob("model.safetensors")]
    assert "Missing argument" in fails("train")


@pytest.mark.slow
def test_process_that_fails_has_status_2_and_no_traceback() -> None:
    process = spawn("tarin")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "No such command" in errors
    assert "Traceback" not in errors


def test_explain_names_what_is_wrong_in_a_model(tmp_path: Path) -> None:
    model = tmp_path / "m.yaml"
    model.write_text("layers:\n  - conv2d: {out_channels: 4, kernel_size: 3}\n  - sigmoyd\n")
    assert (
        f"error: {model}:3:5: layers[1].sigmoyd: unknown layer 'sigmoyd'. Did you mean 'sigmoid' or "
        f"'hardsigmoid'?" in fails("explain", model, "--input", "1x3x8x8")
    )
    assert "--input: expected a shape such as 32x3x32x32, found '3by3'" in fails(
        "explain", SEED, "--input", "3by3"
    )
    assert "expects channels 3 on axis 1, got the shape (1, 4, 8, 8)" in fails(
        "explain", SEED, "--input", "1x4x8x8"
    )
    broken = tmp_path / "m.safetensors"
    broken.write_bytes(b"\x00" * 10)
    assert "not a whole safetensors file" in fails("explain", broken, "--input", "1x3x8x8")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_run_folder_is_an_error_in_words(config: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be written: Permission denied" in fails("train", config, "--run", tmp_path / "r")


def test_schema_is_json_and_layers_list_themselves() -> None:
    schema = json.loads(graphnet("schema").stdout)
    node = schema["$defs"]["node"]["anyOf"][1]["properties"]
    assert node["conv2d"]["properties"]["out_channels"]["anyOf"][0]["exclusiveMinimum"] == 0
    rows = json.loads(graphnet("layers", "--json").stdout)
    names = {row["name"]: row for row in rows}
    assert names["conv2d"]["fields"][:3] == ["in_channels", "out_channels", "kernel_size"]
    assert names["conv2d"]["plugin"] == "graphnet-framework"
    assert "conv2d" in graphnet("layers").stdout
    statuses = {
        row["name"]: row["status"] for row in json.loads(graphnet("plugins", "--json").stdout)
    }
    assert statuses["builtin"] == "loaded"


NAME = "[red]x[/] [0] [/none] :smile: [b]"
FILE = "[red]x[0] [b] :smile:"  # the same without a slash


def test_train_and_explain_print_names_with_brackets(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    model = f"model: {{name: '{NAME}', layers: [sigmoid]}}"
    config.write_text(config.read_text().replace(f"model: {SEED}", model))
    folder = config.parent / FILE
    done = graphnet("train", config, "--run", folder)
    assert done.returncode == 0, done.stderr
    assert f"{NAME}: 64 pairs" in done.stderr
    assert f"log in {folder / 'log.jsonl'}" in done.stderr
    assert f"the model is in {folder / 'model.safetensors'}" in done.stderr
    page = config.parent / f"{FILE}.html"
    saved = (folder / "model.safetensors", "--input", "1x3x8x8")
    assert f"wrote {page}: open" in graphnet("explain", *saved, "--html", page).stderr
    assert f"{NAME}: inference on" in page.read_text()


def test_executor_messages_with_brackets_are_printed_unchanged(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(
        Trainer, "_records", lambda *_: iter([Decided(3, "kernels", f"now {NAME}")])
    )
    done = graphnet("train", config, "--run", config.parent / "run")
    assert f"step 3: now {NAME}" in done.stderr


def test_errors_print_names_with_brackets(tmp_path: Path) -> None:
    model = tmp_path / f"{FILE}.yaml"
    for layer, named in (("{id: 'conv[0]', relu: {}}", "conv[0]"), (f"'{NAME}'", NAME)):
        model.write_text(f"layers:\n  - {layer}\n")
        message = fails("explain", model, "--input", "1x3x8x8")
        assert f"{model}:2:" in message
        assert named in message
    for command in ("check", "train", "convert-pairs"):
        arguments = (FILE, "out.npz") if command == "convert-pairs" else (FILE,)
        assert FILE in fails(command, *arguments)


def test_reports_of_checks_print_names_with_brackets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    message = f"expected {NAME}, found \\[c]\\"
    rows = tuple(Row("purity", status, message) for status in Status)
    monkeypatch.setattr("graphnet.cli.check.run_checks", lambda *_, **__: Report(NAME, rows))
    done = graphnet("check", "-v", "relu")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].strip() == NAME
    assert sum(message in line and "│" in line for line in lines) == len(Status)
    assert any(line.startswith(f"{NAME}: failed, 3 of 4 checks ran, 1 failed") for line in lines)


def test_every_console_prints_names_as_they_are() -> None:
    """Rich reads markup in texts by default, so each place that makes a console has to switch that off."""
    makers = 0
    folders = ("graphnet", "plugins", "examples", "benchmarks", "tests/standalone")
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        calls = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ]
        for call in calls:
            if getattr(call.func, "id", "") in ("Console", "TextColumn"):
                makers += 1
                given = {word.arg: ast.unparse(word.value) for word in call.keywords}
                assert given.get("markup") == "False", f"{path}:{call.lineno}"
    assert makers > 10


@pytest.mark.slow
def test_output_that_nobody_reads_is_no_error() -> None:
    command = f"{sys.executable} -m graphnet schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_shapes_are_read_from_the_command_line() -> None:
    assert parse_shape("32x3X8x8") == (32, 3, 8, 8)
    for text in ("", "3", "x", "0x3", "-1x3", "1x3x"):
        if text == "3":
            assert parse_shape(text) == (3,)
            continue
        with pytest.raises(InputError):
            parse_shape(text)
