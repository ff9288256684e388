"""The command line: `ibot COMMAND`. Commands are declared here, import what they need when called, and raise errors."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from ibot_cli import __version__, console
from ibot_cli.commands.bench import bench
from ibot_cli.commands.cluster import cluster
from ibot_cli.commands.compare import compare
from ibot_cli.commands.data_pack import data_pack
from ibot_cli.commands.data_stats import data_stats
from ibot_cli.commands.embed import embed
from ibot_cli.commands.export import export
from ibot_cli.commands.finetune import finetune
from ibot_cli.commands.inspect import inspect
from ibot_cli.commands.knn_eval import knn_eval
from ibot_cli.commands.linear_probe import linear_probe
from ibot_cli.commands.predict import predict
from ibot_cli.commands.presets import diff, list_presets, show
from ibot_cli.commands.pretrain import pretrain
from ibot_cli.commands.report import report
from ibot_cli.commands.retrieve import retrieve
from ibot_cli.commands.visualize_attention import visualize_attention
from ibot_cli.commands.visualize_correspondence import visualize_correspondence
from ibot_cli.commands.visualize_patterns import visualize_patterns
from ibot_cli.commands.visualize_views import visualize_views
from ibot_cli.errors import IBotError, UsageError

INTERRUPTED, TERMINATED = 130, 143
Command = Callable[..., Any]

COMMANDS: Mapping[str, Command | Mapping[str, Command]] = {
    "pretrain": pretrain,
    "knn-eval": knn_eval,
    "linear-probe": linear_probe,
    "cluster": cluster,
    "retrieve": retrieve,
    "finetune": finetune,
    "predict": predict,
    "embed": embed,
    "inspect": inspect,
    "export": export,
    "compare": compare,
    "visualize-patterns": visualize_patterns,
    "visualize-attention": visualize_attention,
    "visualize-correspondence": visualize_correspondence,
    "visualize-views": visualize_views,
    "report": report,
    "bench": bench,
    "data": {"stats": data_stats, "pack": data_pack},
    "presets": {"list": list_presets, "show": show, "diff": diff},
}
EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "ibot": ("ibot pretrain photos/ --out runs/photos", "ibot knn-eval runs/photos photos/"),
    "pretrain": (
        "ibot pretrain",
        "ibot pretrain photos/ --dry-run",
        "ibot pretrain photos/ --out runs/photos --set train.epochs=200 --set views.num_local=6",
        "ibot pretrain imagenet/train --preset ibot_vitb16 --out runs/vitb16",
        "ibot pretrain photos/ --init timm:vit_small_patch16_224.dino --out runs/continued",
        "ibot pretrain photos/ --out runs/photos --resume",
    ),
    "knn-eval": (
        "ibot knn-eval runs/photos photos/",
        "ibot knn-eval timm:vit_small_patch16_224.dino photos/ --k 20 --json",
        "ibot knn-eval runs/photos photos/ --checkpoints all --per-class",
        "ibot knn-eval runs/photos photos/ --k 5,10,20 --temperature 0.05,0.07,0.1 --exclude-duplicates",
    ),
    "linear-probe": (
        "ibot linear-probe runs/photos photos/",
        "ibot linear-probe runs/photos photos/ --solver lbfgs --json",
        "torchrun --nproc-per-node 8 -m ibot_cli linear-probe runs/vitb16 imagenet/ --augment --precision bf16 "
        "--batch-size 1024",
    ),
    "cluster": (
        "ibot cluster runs/photos photos/",
        "ibot cluster runs/photos photos/ --k 10,20,50 --figures figures/ --out clusters.csv",
        "ibot cluster timm:vit_small_patch16_224.dino photos/ --split all --json",
    ),
    "retrieve": (
        "ibot retrieve runs/photos photos/ --sheet neighbours.png",
        "ibot retrieve runs/photos photos/ one.jpg two.jpg --k 5 --json",
        "ibot retrieve runs/photos photos/ --duplicates --out duplicates.csv",
    ),
    "finetune": (
        "ibot finetune runs/photos flowers/ --out runs/flowers",
        "ibot finetune runs/photos flowers/ --labels-per-class 10 --out runs/flowers10",
        "ibot finetune runs/photos flowers/ --labels-per-class 10 --from-scratch --out runs/scratch10",
        "ibot finetune --out runs/flowers --resume",
    ),
    "predict": (
        "ibot predict runs/flowers photos/ --out predictions.csv",
        "ibot predict runs/flowers one.jpg two.jpg --top 3 --json",
    ),
    "compare": (
        "ibot compare runs/photos",
        "ibot compare runs/photos runs/more-epochs --plot curves.svg",
        "ibot compare runs/* --csv > figures.csv",
    ),
    "report": (
        "ibot report runs/photos",
        "ibot report runs/photos --data photos/ --out photos.html --title 'Photos, first try'",
        "ibot report runs/photos --no-samples",
    ),
    "export": (
        "ibot export runs/photos --to timm --out photos-timm --licence CC-BY-4.0",
        "ibot export runs/flowers --to onnx --out flowers.onnx --int8 --data flowers/",
        "ibot export runs/photos --to official --out photos.pth",
    ),
    "inspect": (
        "ibot inspect runs/photos",
        "ibot inspect downloaded.pth --data photos/ --json",
        "ibot inspect downloaded.pth --config > config.yaml",
    ),
    "embed": (
        "ibot embed runs/photos photos/ --out features.npy",
        "ibot embed timm:vit_small_patch16_224.dino photos/ --out features.parquet --pooling cls+mean --normalize",
    ),
    "visualize-attention": (
        "ibot visualize-attention runs/photos one.jpg two.jpg --size 480",
        "ibot visualize-attention runs/photos one.jpg --threshold 0.6 --at 320,200 --pca",
        "ibot visualize-attention runs/photos photos/ --num 12 --out attention/",
    ),
    "visualize-correspondence": (
        "ibot visualize-correspondence runs/photos one.jpg two.jpg --size 448 --out matches.png",
        "ibot visualize-correspondence runs/photos one.jpg --pairs 32",
        "ibot visualize-correspondence timm:vit_small_patch16_224.dino photos/ --images 200 --json",
    ),
    "visualize-views": (
        "ibot visualize-views photos/ --preset ibot_vitb16",
        "ibot visualize-views photos/ --set views.num_local=6 --set mask.kind=random --num 8 --out views.png",
        "ibot visualize-views photos/ --config runs/photos/config.yaml --epoch 12 --json",
    ),
    "visualize-patterns": (
        "ibot visualize-patterns runs/photos photos/",
        "ibot visualize-patterns runs/photos photos/ --baseline random --out patterns/",
        "ibot visualize-patterns runs/photos photos/ --prototypes 3,17 --top-k 100 --window 7",
    ),
    "bench": (
        "ibot bench --preset ibot_vits16",
        "ibot bench photos/ --preset ibot_vits16 --batch-size 16",
        "ibot bench --config runs/photos/config.yaml --set runtime.precision=fp32 --row",
    ),
    "data": (
        "ibot data stats photos/",
        "ibot data stats hf:NAME --limit 10000 --json",
        "ibot data pack photos/ packed/",
        "ibot data pack imagenet/ packed/ --short-side 256 --quality 90",
        "ibot data pack photos/ packed/ --copy --shard-size 1GB",
    ),
    "presets": ("ibot presets show ibot_vitb16", "ibot presets diff ibot_vits16 ibot_vitb16"),
}
HELP = {
    "data": "Look at a set of images, and put it into a form that loads faster.",
    "presets": "List, show and compare the recipes that ship with ibot.",
}
EXIT_CODES = "0 done, 1 a failure you can fix, 2 wrong usage or configuration, 130 and 143 interrupted (saved)."
OPTIONS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def _epilog(name: str) -> str:
    lines = ["[bold]Examples[/bold]", *(f"  $ {example}" for example in EXAMPLES[name])]
    if name == "ibot":
        lines += ["", f"[bold]Exit codes[/bold]  {EXIT_CODES}"]
    return "\n".join(lines)


def _new_app(name: str, text: str) -> typer.Typer:
    return typer.Typer(
        name=name,
        help=text,
        epilog=_epilog(name),
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings=OPTIONS,
    )


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ibot {__version__}")
        raise typer.Exit()


app = _new_app("ibot", "Pre-train a vision transformer on your own images with iBOT, and measure what it learnt.")


@app.callback(help=app.info.help)
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Leave out notes and tables; data, warnings and errors stay.")
    ] = False,
) -> None:
    """What `ibot` takes without a command."""
    console.keep_quiet(quiet)


class _Command(TyperCommand):
    """A command that says what happened when a shell made many names of a pattern."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        shards = [arg for arg in args if arg.endswith(".tar")]
        try:
            return list(super().parse_args(ctx, args))
        except Exception as error:
            if len(shards) < 2 or "extra argument" not in str(getattr(error, "message", "")):
                raise
        raise UsageError(
            f"{len(shards):,} tar files where DATA is one argument: {shards[0]} to {shards[-1]}.",
            "Put the pattern in quotation marks, so that the shell leaves it alone: 'train-{0000..0012}.tar'.",
        )


def _declare(commands: Mapping[str, Command | Mapping[str, Command]]) -> None:
    for name, command in commands.items():
        if callable(command):
            app.command(name, cls=_Command, epilog=_epilog(name), context_settings=OPTIONS)(command)
            continue
        group = _new_app(name, HELP[name])
        for inner, function in command.items():
            group.command(inner, cls=_Command, context_settings=OPTIONS)(function)
        app.add_typer(group)


_declare(COMMANDS)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM would else kill the process where it stands, and what is half written would stay."""
    raise SystemExit(TERMINATED)


def main() -> None:
    """Run the command line and exit; an `IBotError` becomes an error and a hint on stderr."""
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except IBotError as error:
        console.print_error(error)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
