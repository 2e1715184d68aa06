"""Run an experiment: `python main.py [--config configs/tiny.py] [--workdir DIR] [--mode MODE]`.

MODE is train, plan, predict or evaluate; plan tells what training will need.

Any value of the config can be set on the command line: `--config.train.batch_size=16`. The same command in the same
workdir resumes. Exit code 0 means that the work was done, 2 that something was given that cannot work, 130
that Ctrl-C ended it.
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from vps_jax import command_line

DEFAULT_CONFIG = "configs/tiny.py"
CONFIG = config_flags.DEFINE_config_file("config", None, f"Experiment, default {DEFAULT_CONFIG}.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<name of the config>.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "plan", "predict", "evaluate"], "What to do.")
GPU = flags.DEFINE_string("gpu", None, "Of --mode plan: the GPU to plan for, default a100.")
DEVICES = flags.DEFINE_integer(
    "devices", None, "Of --mode plan: how many, default those of this machine.", lower_bound=1
)
BAD_INPUT = 2
INTERRUPTED = 130  # as a shell says it of Ctrl-C


def parse_flags(argv: list[str]) -> list[str]:
    """Flags with one-line errors; ml_collections raises various exceptions for keys and types that do not fit."""
    if not any(a.lstrip("-").split("=")[0] == "config" for a in argv):
        # not as the flag's own default, which would be loaded, with all overrides, whatever --config says
        argv = [*argv[:1], f"--config={pathlib.Path(__file__).parent / DEFAULT_CONFIG}", *argv[1:]]
    check_config_file(config_reference(argv))
    try:
        left = flags.FLAGS(argv)
        name = CONFIG.value.name  # an error in the file itself comes here
    except (AttributeError, KeyError) as error:
        fail(f"no config key {one_line(error)}; `vps-jax configs NAME` prints all keys of an experiment")
    except (flags.Error, TypeError, ValueError, OSError) as error:
        fail(f"{one_line(error)}; `vps-jax configs NAME` prints all keys of an experiment")
    if len(left) > 1:
        fail(f"{left[1:]} is left over; write values with '=', as in --config.train.steps=100")
    if MODE.value != "plan" and (GPU.value or DEVICES.value):
        fail(f"--gpu and --devices are of --mode plan, this is --mode {MODE.value}; leave them out")
    if WORKDIR.value is None:
        flags.FLAGS.workdir = str(pathlib.Path("runs") / name)
    return left


def config_reference(argv: list[str]) -> str:
    """What `--config FILE[:ARGUMENT]` or `--config=FILE[:ARGUMENT]` names last."""
    words = [word.lstrip("-") for word in argv]
    named = [word.partition("=")[2] for word in words if word.startswith("config=")]
    named += [after for word, after in zip(words, argv[1:], strict=False) if word == "config"]
    return named[-1] if named else ""


def check_config_file(reference: str) -> None:
    """Refuse, in one line, a file that gives no config: ml_collections says it in a page or by another name."""
    from vps_jax.runs import config_files
    from vps_jax.types import UserError

    file = pathlib.Path(reference.partition(":")[0]).resolve()
    path = [*sys.path, str(file.parent)]  # an experiment may import what lies beside it
    try:
        if not file.is_file():
            raise UserError(f"--config {reference}: {file} is not there; expected a file such as {DEFAULT_CONFIG}")
        config_files.load(reference)
    except UserError as error:
        fail(str(error))
    sys.path[:] = path


def one_line(error: Exception) -> str:
    """The message of an exception, shortened; of a traceback in it, what was raised."""
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:
        raised = [line for line in text.splitlines() if line and not line.startswith((" ", "Traceback"))][-1]
        text = raised.partition(": ")[2] or raised
    return " ".join(text.split())[:300]


def fail(line: str):
    """One line on stderr and the exit code of bad input."""
    print(f"error: {line}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def main(_) -> None:
    logging.set_verbosity(logging.ERROR)  # libraries' remarks; ours go through the progress line
    from vps_jax.config import ensemble_experiment as read_ensemble
    from vps_jax.config import experiment as read_config
    from vps_jax.runs import ensemble_experiment, experiment, plan_table
    from vps_jax.types import UserError

    command_line.collect_seldom()
    config = CONFIG.value.to_dict()
    try:
        if "members" in config:
            ensemble_experiment.run(read_ensemble(config), WORKDIR.value, MODE.value)
        elif MODE.value == "plan":
            print(plan_table.plan_text(read_config(config), WORKDIR.value, gpu=GPU.value, devices=DEVICES.value))
        else:
            experiment.run(read_config(config), WORKDIR.value, MODE.value)
    except UserError as error:
        fail(str(error))


if __name__ == "__main__":
    command_line.with_huge_pages()
    try:
        app.run(main, flags_parser=parse_flags)
    except KeyboardInterrupt:  # outside of the steps of a run, which saves and ends by itself
        print("interrupted; the same command goes on from what is finished", file=sys.stderr)
        sys.exit(INTERRUPTED)
