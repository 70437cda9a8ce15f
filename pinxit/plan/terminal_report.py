"""Prints a plan to the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from pinxit.plan.data_cost import stream_needs
from pinxit.plan.plan import Plan
from pinxit.plan.targets import GIB
from pinxit.train.settings import TrainConfig


def show_plan(plan: Plan, console: Console) -> None:
    """Prints the plan: whether it fits, memory, largest batches, time, data and notes."""
    config, result = plan.config, plan.compiled.result
    machine = f"{plan.target.name}: {plan.target.devices} x {plan.target.chip.title}"
    heading = f"{plan.recipe or config.name} on {machine}"
    mesh = ", ".join(f"{name}={size}" for name, size in result["mesh"].items() if size > 1)
    console.print(f"[bold]{heading}[/bold]", highlight=False)
    console.print(
        f"{config.model.preset}, {result['parameters'] / 1e6:.0f} M parameters, "
        f"{config.image_size} x {config.image_size} "
        f"{'latents' if config.model.use_stable_vae else 'pixels'}, batch {config.batch_size}, "
        f"{result['dtype']}, {computed(config)}, mesh {mesh or 'one device'}",
        highlight=False,
    )
    console.print(_verdict(plan), highlight=False)
    console.print(_memory(plan))
    if plan.largest:
        console.print(_largest(plan))
    console.print(_time(plan))
    console.print(_data(plan))
    for line in notes(plan):
        console.print(line, style="dim", highlight=False)


def computed(config: TrainConfig) -> str:
    """Describes how the step is computed: its rematerialisation, blocks and pieces."""
    words = [f"remat {config.model.remat}"]
    if isinstance(config.model.scan_blocks, bool):
        words.append(f"scan_blocks {int(config.model.scan_blocks)}")
    if config.pieces > 1:
        words.append(f"gradient_accumulation_steps {config.pieces}")
    return ", ".join(words)


def _verdict(plan: Plan) -> str:
    """Returns the verdict with its first words in colour."""
    begin, colour = ("It fits", "green") if plan.memory.fits else ("It does not fit", "red")
    return f"[{colour}]{begin}[/{colour}]{plan.verdict().removeprefix(begin)}"


def _memory(plan: Plan) -> Table:
    memory = plan.memory
    table = Table("part", "GiB", "share", title="peak memory of each device", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, size in memory.parts.items():
        table.add_row(name, f"{size / GIB:.2f}", f"{size / memory.peak:.0%}")
    table.add_row("peak", f"{memory.peak / GIB:.2f}", "100%", style="bold")
    table.add_row("available", f"{memory.limit / GIB:.2f}", "")
    return table


def _largest(plan: Plan) -> Table:
    table = Table("remat", "batch", "GiB", "images/s", title="largest batch that fits",
                  title_justify="left")  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for one in plan.largest:
        if one.memory is None:
            table.add_row(one.remat, "none", "", "")
            continue
        rate = plan.rate(one)
        words = f"{rate:.0f}" if rate else ""
        table.add_row(one.remat, str(one.batch), f"{one.memory.peak / GIB:.2f}", words)
    return table


def _time(plan: Plan) -> Table:
    config, time = plan.config, plan.time
    title = f"time, for {config.max_steps:,} steps of {config.batch_size}"
    table = Table("", "planned", "from", "to", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("FLOPs per image", f"{plan.flops_per_image:.3g}", "", "")
    if time is None:
        return table
    three = (time.middle, time.low, time.high)
    table.add_row("seconds per step", *(f"{s:.3f}" for s in three))
    table.add_row("images per second", *(f"{config.batch_size / s:,.0f}" for s in three))
    flops = plan.flops_per_image * config.batch_size
    peak = plan.target.peak(plan.compiled.result["dtype"]) * plan.target.devices
    table.add_row("share of peak FLOP/s", *(f"{flops / s / peak:.0%}" for s in three))
    table.add_row("days", *(f"{plan.hours(s) / 24:.1f}" for s in three))
    if plan.price is not None:
        table.add_row("cost", *(f"{plan.cost(s):,.0f}" for s in three))
    if plan.prepared_time is not None:
        alone = plan.prepared_time
        three = (alone.middle, alone.low, alone.high)
        table.add_row(
            "prepared: images per second", *(f"{config.batch_size / s:,.0f}" for s in three)
        )
        table.add_row("prepared: days", *(f"{plan.hours(s) / 24:.1f}" for s in three))
    for part, seconds in time.by_part.items():
        table.add_row(f"  {part}", f"{seconds / time.seconds:.0%}", "", "", style="dim")
    if time.links:
        table.add_row("  links", f"{time.links / time.seconds:.0%}", "", "", style="dim")
    return table


def _data(plan: Plan) -> Table:
    data = plan.data
    table = Table(title="data, if it comes from COYO", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("images seen", f"{data.seen / 1e6:,.1f} M")
    table.add_row("distinct images", f"{data.distinct / 1e6:,.1f} M ({data.epochs:.1f} epochs)")
    table.add_row("table rows", f"{data.rows / 1e6:,.0f} M")
    table.add_row("fetched", amount(data.fetched_bytes))
    if data.streamed:
        table.add_row("to and from the devices", amount(data.transferred_bytes))
        if plan.images_per_second:
            attempts, bits = stream_needs(plan.images_per_second)
            table.add_row("needed while training",
                          f"{attempts:,.0f} attempts/s, {bits / 1e9:.2f} Gbit/s")  # fmt: skip
        return table
    table.add_row("stored images", amount(data.image_bytes))
    if data.latent_bytes:
        table.add_row("latents", amount(data.latent_bytes))
    if data.text_bytes:
        table.add_row("stored text", amount(data.text_bytes))
    table.add_row("fetching", f"{data.fetch_seconds / 86400:.1f} days")
    return table


def amount(size: float) -> str:
    """Formats the bytes of a dataset as GB or TB."""
    return f"{size / 1e12:.2f} TB" if size >= 1e12 else f"{size / 1e9:.1f} GB"


def notes(plan: Plan) -> list[str]:
    """Returns the notes that say what the figures are based on."""
    lines = []
    if plan.time is not None:
        lines.append(f"Time: {plan.time.method}.")
    if plan.target.platform == "cuda":
        lines.append(
            "Memory: XLA's GPU compiler does not check the GPU's memory, so the peak is compared "
            "with that memory less 1 GiB. `pinxit` lets JAX use 92 % of it "
            "(XLA_PYTHON_CLIENT_MEM_FRACTION; set it to 0.95 if the plan is nearly full)."
        )
    lines.append("Data: the assumptions of docs/coyo.md (pass rate, live links, sizes, 1 Gbit/s).")
    unknown = plan.compiled.result.get("cycles", {}).get("unresolved")
    if unknown:
        lines.append(f"Loops of unknown length are counted once: {', '.join(unknown)}.")
    return lines
