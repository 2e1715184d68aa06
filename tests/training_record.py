"""What the golden file stores of a training run, taken from the steps of `tarvis_training`."""

import collections

import jax
import numpy as np
import optax

from vps_jax import convert
from vps_jax.tasks import terms
from vps_jax.train.optimizer import make_schedule, parameter_groups
from vps_jax.train.state import flat_paths

RECORDED = (1, 2, 3, 5, 10, 20)  # numbers of steps after which the parameters are looked at
# published term -> ours, and the weight that ours carries
TERMS = {
    "instance_cls": ("class", 2.0),
    "instance_mask_ce": ("mask", 5.0),
    "instance_mask_dice": ("dice", 5.0),
    "semantic_ce": ("semantic", 1.0),
    "semantic_reg": ("regularization", terms.REGULARIZATION),
}


class Record:
    """What the golden file stores of a run: `per_step` name -> rows, `single` name -> array."""

    def __init__(self, recipe, manifest: dict, start):
        """A record of `tarvis_training.Recipe` from parameters `start`."""
        self.recipe, self.manifest = recipe, manifest
        published = self.published(start)
        self.start = {key: published[key] for key in manifest["named"]}
        self.per_step, self.single = collections.defaultdict(list), {}
        self.followed = not recipe.prefix  # the run that has norms by group and by part
        if self.followed:
            groups = parameter_groups(start, lr_groups=recipe.optim["lr_groups"], no_decay=recipe.optim["no_decay"])
            self.start_by_path, self.group_of = host(flat_paths(start)), flat_paths(groups.names)
            self.moments = dict.fromkeys(self.start_by_path, 0.0)

    def add(self, scalars: dict[str, np.ndarray], state) -> None:
        """One step that is done."""
        for name, values in self.of_step(scalars).items():
            self.per_step[name].append(values)
        count = int(state.step)
        if self.followed:
            moments = host(flat_paths(optax.tree.get(state.opt_state, "mu")))
            self.per_step["grad_norm_of_parts"].append(self.part_norms(moments, float(scalars["grad_norm"])))
            self.moments = moments
            if count == 1:
                self.store("adam_mu_after1", self.published(optax.tree.get(state.opt_state, "mu")))
        if count in RECORDED:
            self.store_changes("change", count, state.variables["params"])
            self.store_changes("ema_change", count, state.ema["params"])

    def of_step(self, scalars) -> dict[str, np.ndarray]:
        """Loss, terms of every set, norm, rates, assignment and masks of one step."""
        sets = self.manifest["arrays"]["match_columns"]["shape"][1:]
        found = {"loss": scalars["loss"], "grad_norm": scalars["grad_norm"]}
        for name, (ours, weight) in TERMS.items():
            found[f"loss_{name}"] = scalars[ours] / weight if ours in scalars else np.zeros(sets[0])
        found |= {"match_columns": scalars.get("columns", np.full(sets, -1)), "open_mask_bits": scalars["open_bits"]}
        if "other_bits" in scalars:
            found["other_bits"] = scalars["other_bits"]
        rate = make_schedule(self.recipe.optim)(len(self.per_step["loss"]))
        scales = {name: scale for name, _, scale in self.recipe.optim["lr_groups"]}
        return found | {"learning_rates": np.array([rate * scales["backbone"], rate * scales["rest"]])}

    def part_norms(self, moments, grad_norm: float) -> np.ndarray:
        """Norm of the gradient by part, before the clip: what Adam's first moment gained, unclipped."""
        b1, clip = self.recipe.optim["b1"], self.recipe.optim["clip_norm"]
        squares = dict.fromkeys(self.manifest["parts"], 0.0)
        for path, moment in moments.items():
            room = path.split("/")[0]
            gained = np.asarray(moment) - b1 * self.moments[path]
            squares[room if room in squares else "decoder"] += float(np.sum(np.square(gained, dtype=np.float64)))
        unclip = 1 / ((1 - b1) * min(1.0, clip / (grad_norm + 1e-6)))
        return np.sqrt([squares[part] for part in self.manifest["parts"]]) * unclip

    def store_changes(self, name: str, count: int, params) -> None:
        """Slices and norms of (parameter - its start), and norms of the parameters, of the named ones."""
        published = self.published(params)
        now = {key: published[key].astype(np.float64) for key in self.manifest["named"]}
        change = {key: a - self.start[key] for key, a in now.items()}
        self.store(f"{name}_after{count}", change)
        self.single[f"{name}_norm_after{count}"] = norms(change)
        if self.followed:
            self.single[f"{name}_norm_of_groups_after{count}"] = self.group_norms(host(flat_paths(params)))
        if name == "change":
            self.single[f"norm_after{count}"] = norms(now)

    def store(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """64 entries of every named parameter, in the backbone, in the rest and of all."""

        for suffix in ("", "_backbone", "_rest"):
            entries = [evenly(arrays[key]) for key in self.manifest[f"named{suffix}"]]
            self.single[name + suffix] = np.stack(entries)

    def group_norms(self, params: dict[str, np.ndarray]) -> np.ndarray:
        """Norm of the change of every optimiser group."""
        squares = dict.fromkeys(self.manifest["groups"], 0.0)
        for path, now in params.items():
            squares[self.group_of[path]] += float(np.sum(np.square(now.astype(np.float64) - self.start_by_path[path])))
        return np.sqrt([squares[group] for group in self.manifest["groups"]])

    def published(self, params) -> dict[str, np.ndarray]:
        """Parameters under their published names and in their layout."""
        return convert.to_arrays({"params": host(params)}, self.recipe.model)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, by the golden file's names without the prefix."""
        return {name: np.stack(rows) for name, rows in self.per_step.items()} | self.single


def host(tree):
    return jax.tree.map(np.asarray, tree)


def norms(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.array([np.linalg.norm(a.ravel()) for a in arrays.values()])


def evenly(array: np.ndarray, count: int = 64) -> np.ndarray:
    """Entries of an array that stand for it, from the first to the last."""
    return array.ravel()[np.rint(np.linspace(0, array.size - 1, count)).astype(int)]
