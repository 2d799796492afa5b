"""graphnet machine: measure this machine once, for the least times that explain shows."""

from __future__ import annotations

import click

from graphnet.cli import json_text
from graphnet.errors import CompileError
from graphnet.graph import machine_data, machine_path, save_machine
from graphnet.inspection import measure
from graphnet.system import cache_folder, find_compiler, resolve_device


@click.command(short_help="Measure this machine, for the times in explain.")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def machine(device: str, as_json: bool) -> None:
    """Measure how fast a device moves bytes, multiplies and starts an operator; this takes a few seconds.

    The numbers are written to the cache folder ($GRAPHNET_CACHE, or that of the platform), for this device
    and this version of torch. `graphnet explain` computes the least time of each step from them. They do
    not influence any plan.
    """
    where = resolve_device(device)
    found = measure(where, say=lambda doing: click.echo(f"measuring {doing} ...", err=True))
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


def _compiler() -> str:
    """Return the C++ compiler, or say which parts are not used without one."""
    try:
        return " ".join(find_compiler("it", otherwise="do without"))
    except CompileError:
        return "none for C++: its kernels and the executor inductor are not used on the CPU"
