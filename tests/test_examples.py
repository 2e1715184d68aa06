"""The examples for schedulers: their files are read as the scheduler reads them, and their commands are commands."""

import ast
import os
import pathlib
import subprocess

import pytest
import typer
import yaml

from vps_jax.cli import app
from vps_jax.train.launchers import layout

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


def parsed(program, command, *arguments):
    """The parameters of a command line of `vps-jax predict`, which is not run."""
    assert (program, command) == ("vps-jax", "predict")
    return typer.main.get_command(app).commands["predict"].make_context("predict", list(arguments)).params


def test_the_kubernetes_job_runs_pods_that_share_an_output():
    job = yaml.safe_load((EXAMPLES / "predict_job.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    params = parsed(*container["command"])
    assert params["inputs"] == ["/data/videos"] and str(params["output"]) == "/data/results"
    (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
    assert volume["name"] == mount["name"] and mount["mountPath"] == "/data"
    environ = {one["name"]: one["value"] for one in container["env"]}
    assert layout(environ | {"KUBERNETES_SERVICE_HOST": "k", "JOB_COMPLETION_INDEX": "1"}) is None  # no run of several
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"] and pod["restartPolicy"] == "Never"


def test_the_slurm_array_hands_its_arguments_on(tmp_path):
    script = EXAMPLES / "predict_slurm_array.sh"
    for name, text in ((".venv/bin/activate", ""), ("bin/srun", '#!/bin/bash\nprintf "%s\\n" "$@"\n')):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "bin" / "srun").chmod(0o755)
    given = ["my videos/*.mp4", "--checkpoint", "runs/stage4", "--output", "results"]
    environ = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", script, *given], cwd=tmp_path, env=environ, check=True, capture_output=True, text=True
    )
    assert parsed(*done.stdout.splitlines())["inputs"] == ["my videos/*.mp4"]
    options = [line.split()[1] for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--array=0-7", "--ntasks=1", "--gpus=1", "--signal=TERM@60", "--requeue"} <= set(options)
    assert layout({"SLURM_NTASKS": "1", "SLURM_ARRAY_TASK_ID": "3"}) is None


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_have_no_syntax_error(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0 and os.access(path, os.X_OK)


def test_the_commands_in_the_heads_of_the_examples_are_commands():
    heads = [ast.get_docstring(ast.parse((EXAMPLES / "predict_ray.py").read_text()))]
    heads.append((EXAMPLES / "predict_slurm_array.sh").read_text())
    for head, script in zip(heads, ("predict_ray.py --workers 8 --gpus 1", "predict_slurm_array.sh"), strict=True):
        (line,) = [line for line in head.splitlines() if f"examples/{script} " in line]
        arguments = line.split(f"{script} ")[1].replace("'", "").split()
        assert str(parsed("vps-jax", "predict", *arguments)["output"]) == "results"
