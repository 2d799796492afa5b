"""graphnet machine: measure this machine once, for the least times that explain shows."""

from __future__ import annotations

from dataclasses import asdict

import click

from graphnet.cli import json_text
from graphnet.cli.processes import TIMEOUT_S, is_one_of_several, joined, start_processes
from graphnet.errors import CompileError
from graphnet.graph import machine_data, machine_path, network_path, save_machine, save_network
from graphnet.inspection import measure, measure_network
from graphnet.system import cache_folder, find_compiler, resolve_device


@click.command(short_help="Measure this machine, for the times in explain.")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--network",
    "as_network",
    is_flag=True,
    help="Measure how fast processes exchange values instead; torchrun measures several machines.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=2),
    help="With --network: the number of processes on this machine; by default 2.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def machine(device: str, as_network: bool, processes: int | None, as_json: bool) -> int:
    """Measure how fast a device moves bytes, multiplies and starts an operator; this takes a few seconds.

    The numbers are written to the cache folder ($GRAPHNET_CACHE, or that of the platform), for this device
    and this version of torch. `graphnet explain` computes the least time of each step from them. They do
    not influence any plan.
    """
    if processes is not None and not as_network:
        raise click.UsageError(
            "--processes belongs to --network: a machine is measured by one process."
        )
    if processes is not None and is_one_of_several():
        raise click.UsageError("torchrun has started the processes already: leave --processes out.")
    if as_network and not is_one_of_several():
        options = ["--device", device, "--network", *(["--json"] if as_json else [])]
        return start_processes(processes or 2, ["machine", *options])
    if as_network:
        _network(device, as_json=as_json)
    else:
        _machine(device, as_json=as_json)
    return 0


def _machine(device: str, *, as_json: bool) -> None:
    where = resolve_device(device)
    found = measure(where, say=_say)
    path = machine_path(where, cache_folder())
    save_machine(found, path)
    if as_json:
        click.echo(json_text(machine_data(found)))
        return
    click.echo(f"device      {found.device}, torch {found.torch_version}")
    click.echo(f"bandwidth   {found.bandwidth / 1e9:.1f} GB/s")
    for name, ceiling in found.flops.items():
        click.echo(f"{name:<10}  {ceiling / 1e9:.0f} GFLOP/s")
    click.echo(f"launch      {found.launch_s * 1e6:.2f} us an operator")
    click.echo(f"compiler    {_compiler()}")
    click.echo(f"kept in {path}", err=True)


def _network(device: str, *, as_json: bool) -> None:
    """Measure the network between the processes that torchrun has started; the first prints."""
    with joined(TIMEOUT_S) as together:
        first = together.rank == 0
        found = measure_network(
            together, resolve_device(device), say=_say if first else lambda text: None
        )
        if not first:
            return
        path = network_path(found.name, cache_folder())
        save_network(found, path)
        if as_json:
            click.echo(json_text(asdict(found)))
            return
        click.echo(f"network     {found.name}")
        click.echo(f"latency     {found.latency_s * 1e6:.1f} us a message")
        click.echo(f"bandwidth   {found.bandwidth / 1e9:.2f} GB/s")
        click.echo(
            f"hidden      {100 * found.hidden:.0f} % of an exchange, by computations beside it"
        )
        click.echo(f"kept in {path}", err=True)


def _say(doing: str) -> None:
    click.echo(f"measuring {doing} ...", err=True)


def _compiler() -> str:
    """Return the C++ compiler, or say which parts are not used without one."""
    try:
        return " ".join(find_compiler("it", otherwise="do without"))
    except CompileError:
        return "none for C++: its kernels and the executor inductor are not used on the CPU"
