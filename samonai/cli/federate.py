"""`samonai federate`: one decoder over several sites, whose images stay where they are."""

from pathlib import Path
from typing import Annotated, Any

import typer

from samonai.cli import options

app = typer.Typer(
    no_args_is_help=True, help="Train one decoder over several sites; images stay there (NVFlare)."
)

Rounds = Annotated[int, typer.Option(min=1, help="Number of rounds.")]
LocalEpochs = Annotated[
    int, typer.Option(min=1, help="Epochs at each site in each round; the rate's plan spans all.")
]
Proximal = Annotated[
    float, typer.Option(min=0, help="Factor of FedProx's proximal term; 0 is FedAvg.")
]
Privacy = Annotated[
    str | None,
    typer.Option(help="NVFlare's filter of what each site sends: percentile or svt."),
]


@app.command(
    epilog="Example: samonai federate simulate medical --site north --site south --rounds 10 "
    "--out runs/both"
)
def simulate(
    domain: options.Domain,
    site: Annotated[
        list[Path],
        typer.Option(help="A site's folder with imagesTr and labelsTr; once for each site."),
    ],
    out: Annotated[Path, typer.Option(help="The run's folder, which predict --run opens.")],
    rounds: Rounds = 5,
    local_epochs: LocalEpochs = 1,
    proximal: Proximal = 0.0,
    model: options.Model = "micro",
    heads: options.Heads = None,
    checkpoint: options.Checkpoint = None,
    store: options.Store = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    val_fraction: options.ValFraction = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Sites at work at once; by default all.")
    ] = None,
    privacy: Privacy = None,
    set_: options.Set = None,
) -> None:
    """Simulate a federation on this machine with NVFlare's simulator.

    Each site encodes and trains on its own folder only. The sites' decoders are averaged by their
    numbers of training cases; the best average by the sites' held-out cases is the run's decoder.
    """
    from samonai.federated import job
    from samonai.workflows import arguments

    arguments.check_model(model, checkpoint, None, device)
    job.need_nvflare()
    plan = _plan(
        domain, set_, model=model, rounds=rounds, local_epochs=local_epochs, proximal=proximal,
        seed=seed, min_sites=len(site), heads=heads, val_fraction=val_fraction,
    )  # fmt: skip
    outcome = job.simulate(
        site, out, plan, checkpoint=checkpoint, store=store, device=device, threads=threads,
        privacy=privacy,
    )  # fmt: skip
    for row in outcome["rounds"]:
        dice = ", ".join(f"{name} {value:.3f}" for name, value in row["global_dice"].items())
        typer.echo(
            f"round {row['round']}: Dice {row['val_dice']:.3f} ({dice}); "
            f"{row['bytes_down'] / 1e6:.1f} MB to the sites, {row['bytes_up'] / 1e6:.1f} MB back"
        )
    typer.echo(f"{out}: the decoder of round {outcome['best_round']}")


@app.command(
    epilog="Example: samonai federate provision --server fl.example.org --site north --site south "
    "--admin anna@example.org --out kits"
)
def provision(
    server: Annotated[str, typer.Option(help="The server's host name, as the sites reach it.")],
    site: Annotated[list[str], typer.Option(help="A site's name; once for each site.")],
    admin: Annotated[str, typer.Option(help="Address of the person who submits jobs.")],
    out: Annotated[Path, typer.Option(help="Folder for the project and the startup kits.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="The server's port.")] = 8002,
) -> None:
    """Make startup kits with NVFlare: certificates and scripts of all participants."""
    from samonai.federated import provision as kits

    for name, folder in kits.provision(server, site, out, admin=admin, port=port).items():
        typer.echo(f"{name}: {folder}")


@app.command(epilog="Example: samonai federate server kits/samonai/prod_00/fl.example.org")
def server(
    kit: Annotated[Path, typer.Argument(help="The server's startup kit.")],
) -> None:
    """Start the server of a startup kit, in the foreground."""
    from samonai.federated import provision as kits

    raise typer.Exit(kits.start(kit))


@app.command(
    epilog="Example: samonai federate client north --images imagesTr --labels labelsTr "
    "--store embeddings"
)
def client(
    kit: Annotated[Path, typer.Argument(help="The site's startup kit.")],
    images: options.Images,
    labels: options.Labels = None,
    store: options.Store = None,
    checkpoint: options.Checkpoint = None,
    device: options.Device = None,
) -> None:
    """Start a site of a startup kit, in the foreground, on the data of this site.

    The server does not learn the paths, and cannot choose others.
    """
    from samonai.federated import provision as kits
    from samonai.workflows import arguments

    arguments.check_data(images, labels)
    kits.name_data(kit, images, labels, store=store, checkpoint=checkpoint, device=device)
    raise typer.Exit(kits.start(kit))


@app.command(
    epilog="Example: samonai federate job medical --rounds 20 --min-sites 3 --out jobs; then "
    "nvflare job submit -j jobs/samonai --startup-kit anna@example.org"
)
def job(
    domain: options.Domain,
    out: Annotated[Path, typer.Option(help="Folder for the job, which is named samonai.")],
    rounds: Rounds = 5,
    local_epochs: LocalEpochs = 1,
    proximal: Proximal = 0.0,
    model: options.Model = "micro",
    heads: options.Heads = None,
    checkpoint: options.Checkpoint = None,
    seed: options.Seed = 0,
    val_fraction: options.ValFraction = None,
    min_sites: Annotated[int, typer.Option(min=1, help="Fewest sites that a round needs.")] = 2,
    wait: Annotated[
        int, typer.Option(min=0, help="Seconds to wait for further sites beyond these.")
    ] = 600,
    privacy: Privacy = None,
    set_: options.Set = None,
) -> None:
    """Write a federation as an NVFlare job, a configuration without code, for `nvflare job`."""
    from samonai.federated.job import write_job

    plan = _plan(
        domain, set_, model=model, rounds=rounds, local_epochs=local_epochs, proximal=proximal,
        seed=seed, min_sites=min_sites, wait=wait, heads=heads, val_fraction=val_fraction,
    )  # fmt: skip
    typer.echo(write_job(out, plan, checkpoint=checkpoint, privacy=privacy))


def _plan(domain: str, set_: list[str] | None, **values: Any) -> Any:
    """Return the plan; values that are None are the plan's own defaults."""
    from samonai.federated.plan import FederatedPlan
    from samonai.settings import options as own_options
    from samonai.workflows.bundle_files import TRAIN, config_files, read_config
    from samonai.workflows.settings import parse_settings

    config = read_config(config_files(domain, TRAIN))
    settings = parse_settings(set_ or [], config, own_options())
    given = {name: value for name, value in values.items() if value is not None}
    return FederatedPlan(domain=domain, settings=settings, **given)
