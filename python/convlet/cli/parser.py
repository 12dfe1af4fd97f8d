"""What the command line offers. Commands are imported when they run."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import NoReturn

from convlet.cli.recipes import RECIPES, flags

DATA_HELP = (
    "a folder of class folders (or of train/, val/, test/ with class folders), a .csv of "
    "path,label (or of path and several columns of labels, named in its first line), an .npz with "
    "x and y, or a data set: digits, mnist, fashion_mnist, cifar10, cifar100"
)
RUN_HELP = "a run folder, or a saved model (.safetensors)"
MODELS = (
    "small_cnn",
    "cifar_cnn",
    "mnist_cnn",
    "cifar_small",
    "img224",
    "lenet",
    "alexnet",
    "vgg11",
    "vgg16",
    "nin",
    "googlenet",
    "inception_v3",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet18_cifar",
    "densenet121",
    "se_resnet50",
    "mobilenet_v2",
    "convnext_tiny",
    "vit_tiny",
    "vit_small",
    "vit_base",
    "lstm_classifier",
    "gru_classifier",
)
OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
BALANCES = ("none", "weight", "sample")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "tf32", "bfloat16")


class Parser(argparse.ArgumentParser):
    """argparse with a mistake told in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command; `options.run(options)` carries it out."""
    parser = Parser(
        prog="convlet",
        description="Train image classifiers and use them.",
        allow_abbrev=False,
        epilog="First steps: convlet train digits",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )

    train = _command(commands, "train", "train a model and measure it on held-out images")
    train.add_argument("data", metavar="DATA", help=DATA_HELP)
    train.add_argument("--model", choices=MODELS, help="the network (default: small_cnn)")
    train.add_argument(
        "--multi-label",
        action="store_true",
        help="any number of labels per image: DATA is a .csv of path and names separated by ;, or "
        "of path and a column of 0 and 1 per label (an empty cell: not known)",
    )
    train.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="values of flags that are not given; "
        + "; ".join(f"{name} is {flags(name)}" for name in RECIPES),
    )
    train.add_argument("--epochs", type=_count, help="passes over the data (default: 40)")
    train.add_argument("--batch-size", type=_count, help="images per step (default: 32)")
    train.add_argument(
        "--image-size",
        type=_count,
        help="height and width of the input (default: that of the images, 128 at most; the "
        "least that the network takes, if that is more)",
    )
    train.add_argument(
        "--lr",
        type=_positive,
        help="first learning rate; it falls to 0 along a cosine (default: 0.001, sgd 0.03)",
    )
    train.add_argument(
        "--warmup",
        type=_whole,
        metavar="EPOCHS",
        help="epochs in which the learning rate rises from 0, before it falls (default: 0)",
    )
    train.add_argument(
        "--label-smoothing",
        type=_share,
        help="share of each label that is spread over all classes (default: 0)",
    )
    train.add_argument(
        "--optimizer", choices=OPTIMIZERS, help="default: adam; sgd has momentum 0.9"
    )
    train.add_argument(
        "--augment",
        metavar="CHANGES",
        help="how training images change at random: default (moved by up to an eighth), none, or "
        "e.g. flip,rotate=15,shift=0.1,zoom=0.1,brightness=0.2,padding=4,erase=0.5",
    )
    train.add_argument("--device", choices=DEVICES, help="default: auto")
    train.add_argument(
        "--precision", choices=PRECISIONS, help="of the products in kernels (default: float32)"
    )
    train.add_argument("--seed", type=_whole, help="of the split, weights and order (default: 0)")
    train.add_argument(
        "--val-split",
        type=_share,
        help="share of the training images that chooses the best epoch (default: 0.1)",
    )
    train.add_argument(
        "--balance",
        choices=BALANCES,
        help="make uneven classes count alike: weight their losses, or draw each equally often "
        "(default: none)",
    )
    train.add_argument(
        "--folds",
        type=_folds,
        metavar="K",
        help="train K times, each with another share held out, and report mean and spread",
    )
    train.add_argument(
        "--resume",
        action="store_true",
        help="go on where the latest run on DATA (or the run in --out) stopped",
    )
    train.add_argument("--out", metavar="DIR", help="the run folder (default: runs/<data>-<n>)")

    evaluate = _command(commands, "evaluate", "measure a model on images it was not trained on")
    evaluate.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    evaluate.add_argument("data", metavar="DATA", help=DATA_HELP)

    predict = _command(commands, "predict", "name what is on images")
    predict.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    predict.add_argument(
        "images", metavar="IMAGE", nargs="+", help="image files, folders of them, or a data set"
    )

    doctor = _command(
        commands, "doctor", "show what convlet found on this machine, and check a kernel"
    )
    doctor.add_argument(
        "--selftest",
        action="store_true",
        help="run each family of CUDA kernels on small problems against the CPU, now",
    )
    return parser.parse_args(arguments)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from convlet import __version__

        print(f"convlet {__version__}")
        parser.exit()


def _command(commands: argparse._SubParsersAction, name: str, help: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)

    def run(options: argparse.Namespace) -> None:
        importlib.import_module(f"convlet.cli.{name}").run(options)

    parser.set_defaults(run=run)
    return parser


def _checked(kind: Callable[[str], float], valid: Callable[[float], bool], what: str) -> Callable:
    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not valid(value):
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
        return value

    return convert


_count = _checked(int, lambda n: 1 <= n < 2**31, "a whole number of at least 1")
_folds = _checked(int, lambda n: 2 <= n < 2**31, "a whole number of at least 2")
_whole = _checked(int, lambda n: 0 <= n < 2**31, "a whole number of at least 0")
_positive = _checked(float, lambda x: 0 < x < float("inf"), "a number above 0")
_share = _checked(float, lambda x: 0 <= x < 1, "a share of at least 0 and below 1")
