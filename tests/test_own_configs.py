"""configs/own.py in every kind and size: whole, of the architecture it names, with the optimiser groups of its kind."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.interpreters import partial_eval

from configs import own, stage2, vspw_vit_adapter
from vps_jax import agreement, models, tasks
from vps_jax.config import experiment
from vps_jax.train.optimizer import make_schedule, parameter_groups
from vps_jax.train.state import flat_paths
from vps_jax.types import Clip, UserError

ALL = [(kind, size) for kind in own.KINDS for size in (own.IMAGE_SIZES if kind == "image" else own.SIZES)]
BUILT = [
    ("panoptic", "small"), ("semantic", "swin_tiny"), ("instance", "swin_large"), ("panoptic", "resnet50"),
    ("image", "small"), ("image", "beit_large_640"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "size"), ALL)
def test_every_kind_and_size_is_an_experiment_on_own_data(kind, size):
    config = experiment(own.get_config(f"{kind},{size}"))
    agreement.check(config)
    (source,) = config.data.sources.values()
    assert config.model.semantic_groups == (("OWN", 1),) and source.group == config.infer.semantic_group == "OWN"
    assert (source.path, config.evaluate.truth, config.synthetic.folder) == ("", "", "")
    assert list(config.tasks) == [source.task] == ["mask_classification" if kind == "image" else kind]
    assert config.infer.task == source.task and source.draw_by == "frames"
    assert config.train.best_metric == {"panoptic": "vpq", "instance": "ap"}.get(kind, "miou")
    assert config.train.evaluate_every <= config.train.steps
    assert float(make_schedule(config.optim)(config.train.steps - 1)) < config.optim.lr / 2  # it comes down


@pytest.mark.parametrize(("kind", "size"), BUILT)
def test_sizes_build_and_published_ones_are_those_of_their_models(kind, size):
    config = experiment(own.get_config(f"{kind},{size}"))
    shapes = variables(config.model)
    groups = parameter_groups(shapes["params"], lr_groups=config.optim.lr_groups, no_decay=config.optim.no_decay)
    assert {name.removesuffix("/no_decay") for name in flat_paths(groups.names).values()} == {
        row[0] for row in config.optim.lr_groups
    }


@pytest.mark.parametrize(("kind", "size"), [row for row in ALL if row[1] not in own.SMALL])
def test_published_sizes_are_the_models_whose_weights_they_start_from(kind, size):
    """But for the classes and for what a stage has more, which is left behind."""
    config = experiment(own.get_config(f"{kind},{size}"))
    published = experiment((vspw_vit_adapter if kind == "image" else stage2).get_config(size))
    own_part = {"semantic_groups": config.model.semantic_groups} | ({} if kind == "image" else {"vos": False})
    assert config.model == dataclasses.replace(published.model, **own_part)
    assert config.infer.short_side_px == (448 if kind == "instance" else published.infer.short_side_px)


def variables(model):
    return models.shapes(models.build(model))


@pytest.mark.parametrize("kind", ["semantic", "instance"])  # that of panoptic is stage 4's, tests/train/test_stages.py
def test_rows_of_rate_0_are_what_the_loss_of_a_kind_does_not_depend_on(kind):
    """Weight decay would shrink what gets no gradient (spec: tarvis 6.6)."""
    config = own.get_config(f"{kind},tiny")
    config.model.update({"neck_layers": 1, "decoder_layers": 3})
    config = experiment(config)
    module, shapes = models.build(config.model), variables(config.model)
    task = tasks.make_task(kind, config.tasks[kind], num_classes=1)
    clip = Clip(np.zeros((1, 1, 64, 64, 3), np.uint8), np.ones((1, 1, 64, 64), np.uint16), np.zeros((1, 2), np.int32))

    def loss(own):
        outputs = module.apply(own, clip.images, task=kind, group="OWN")
        return task.loss(outputs, task.make_targets(clip), jax.random.key(0))[0]

    jaxpr = jax.make_jaxpr(loss)(shapes).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True])
    unused = {path for path, here in zip(flat_paths(shapes["params"]), used, strict=True) if not here}
    groups = parameter_groups(shapes["params"], lr_groups=config.optim.lr_groups, no_decay=config.optim.no_decay)
    still = {path for path, scale in flat_paths(groups.lr_scales).items() if scale == 0}
    assert {path for path in unused if not path.startswith("queries/")} == still  # queries do not decay


def test_a_size_of_another_kind_is_refused():
    for argument, line in (("image,swin_tiny", "'swin_tiny'"), ("semantic,beit_large_640", "'beit_large_640'")):
        with pytest.raises(UserError, match=f"argument {line} of the experiment: expected one of tiny, small"):
            own.get_config(argument)


def test_an_evaluation_that_is_turned_off_leaves_the_steps_alone():
    """The schedule follows the steps, and the steps follow nothing."""
    config = own.get_config("semantic,tiny")
    config.train.steps = 3
    assert (config.train.evaluate_every, config.optim.total_steps) == (3, 3)
    config.train.evaluate_every = 0
    assert (config.train.steps, config.optim.total_steps) == (3, 3)
