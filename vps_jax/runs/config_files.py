"""Experiment files: those of `configs/` by name, in a clone or in a wheel, and a user's own by path."""

import ast
import contextlib
import importlib.util
import inspect
import pathlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from types import ModuleType

from vps_jax import agreement
from vps_jax.config import ensemble_experiment, experiment
from vps_jax.types import UserError

PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def folder() -> pathlib.Path:
    """The folder `configs`: beside the package in a clone, inside the package in a wheel."""
    places = (PACKAGE.parent / "configs", PACKAGE / "shipped" / "configs")
    return next((place for place in places if (place / "common.py").is_file()), places[0])


def names() -> dict[str, str]:
    """Every shipped experiment and the first line of its docstring."""
    lines = {}
    for path in sorted(folder().glob("*.py")):
        tree = ast.parse(path.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "get_config" for node in tree.body):
            lines[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return lines


def find(reference: str) -> tuple[pathlib.Path, str]:
    """File and argument of `FILE[:ARGUMENT]`; FILE is a path, or the name of a shipped experiment.

    Raises:
      UserError: there is no such file.
    """
    file, _, argument = str(reference).partition(":")
    path = pathlib.Path(file).resolve()
    if path.is_file():
        return path, argument
    shipped = folder() / f"{pathlib.Path(file).stem}.py"
    if shipped.is_file() and file in (shipped.stem, shipped.name, f"configs/{shipped.name}"):
        return shipped, argument
    raise UserError(f"{path} is not there; expected an experiment file, or one of {', '.join(names())}")


def load_module(reference: str) -> tuple[ModuleType, str]:
    """The module of an experiment file, and the argument. The file may import its neighbours, as with main.py.

    Raises:
      UserError: there is no such file, it cannot be executed, or it has no `get_config`.
    """
    path, argument = find(reference)
    # as a script finds what lies beside it; the parent is for `from configs import common`
    sys.path[:0] = [place for place in map(str, (path.parents[1], path.parent)) if place not in sys.path]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with one_line(path):
        spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} has no get_config(); expected an experiment such as configs/stage2.py")
    return module, argument


def load(reference: str) -> dict:
    """`get_config(ARGUMENT)` of an experiment file as plain dicts.

    Raises:
      UserError: there is no such file, it takes no such argument, or it gives no config.
    """
    module, argument = load_module(reference)
    takes = inspect.signature(module.get_config).parameters
    if argument and not takes:
        raise UserError(f"{reference}: this experiment takes no argument; leave out ':{argument}'")
    with one_line(module.__file__):
        config = module.get_config(*[argument] if argument else [])
    if not hasattr(config, "to_dict"):
        raise UserError(
            f"{reference}: get_config() gives a {type(config).__name__}; expected an ml_collections.ConfigDict"
        )
    return config.to_dict()


@contextlib.contextmanager
def one_line(file) -> Iterator[None]:
    """Turn an exception of an experiment file into a UserError with the file and the line where it came from."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = str(file) if line is None else f"{file}, line {line}"
        said = error.msg if isinstance(error, SyntaxError) else error
        raise UserError(f"{place}: {type(error).__name__}: {said}; correct the experiment file") from error


def check(config: Mapping) -> None:
    """Raises UserError for a value of a config that cannot work; nothing is opened or computed."""
    if "members" in config:
        ensemble_experiment(config)
        return
    from vps_jax import models

    parsed = experiment(config)
    agreement.check(parsed)
    models.build(parsed.model)


def lines(config: Mapping, indent: str = "") -> list[str]:
    """A config as indented lines `key: value`."""
    rows = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            rows += [f"{indent}{key}:", *lines(value, f"{indent}  ")]
        else:
            rows.append(f"{indent}{key}: {value!r}")
    return rows
