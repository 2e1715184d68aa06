"""Train or evaluate an experiment: `python main.py [--config configs/tiny.py] [--workdir DIR] [--mode train|evaluate]`.

Any value of the config can be set on the command line: `--config.train.batch_size=16`. The same command in the same
workdir resumes. Exit code 0 means that the work was done, 2 that something was given that cannot work.
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", "configs/tiny.py", "Experiment to run.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<name of the config>.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
BAD_INPUT = 2


def parse_flags(argv: list[str]) -> list[str]:
    """Flags with one-line errors; ml_collections raises various exceptions for keys and types that do not fit."""
    try:
        left = flags.FLAGS(argv)
        flags.FLAGS.validate_all_flags()
        name = CONFIG.value.name  # loads the file
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        text = " ".join(str(error).split()).strip("'\"")
        fail(f"{text[:300]} (in {' '.join(argv[1:])}); see the keys in configs/common.py")
    if len(left) > 1:
        fail(f"{left[1:]} is left over; write values with '=', as in --config.train.steps=100")
    if WORKDIR.value is None:
        flags.FLAGS.workdir = str(pathlib.Path("runs") / name)
    return left


def fail(line: str):
    """One line on stderr and the exit code of bad input."""
    print(f"error: {line}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def main(_) -> None:
    logging.set_verbosity(logging.ERROR)  # libraries' remarks; ours go through the progress line
    from vps_jax import experiment
    from vps_jax.types import UserError

    try:
        experiment.run(CONFIG.value.to_dict(), WORKDIR.value, MODE.value)
    except UserError as error:
        fail(str(error))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
