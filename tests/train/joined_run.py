"""Processes that train the micro model as one run: `python joined_run.py WORKDIR STEPS FSDP [PREPARED]`.

Each prints as json its number, how many there are, and the clips of every step. PREPARED is a prepared VIPSeg, of whose
stream names and checksums are printed; the model, whose norm needs colours that are far apart, sees drawn clips anyway.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import zlib


def run(workdir, *, processes: int = 1, devices: int = 1, steps: int = 5, fsdp: int = 1, prepared="", mpirun=False):
    """Train, with so many devices in each process, started by themselves or by mpirun.

    Returns:
      the names of the clips of every step, those of the first process first.
    """
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags}
    command = [sys.executable, __file__, *map(str, (workdir, steps, fsdp, prepared))]
    if mpirun:  # both processes write into one pipe
        options = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
        command = ["mpirun", *options, "-n", str(processes), *command]
        environments = [environment | {"OMPI_MCA_btl_vader_single_copy_mechanism": "none"}]
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        joined = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(processes)}
        joined = joined if processes > 1 else {}
        environments = [environment | joined | {"JAX_PROCESS_ID": str(i)} for i in range(processes)]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, env=one, **pipe) for one in environments]
    clips: dict[int, dict[int, list[str]]] = {}
    for process in started:
        text, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        for line in text.splitlines():
            if not line.startswith("{"):  # what joins processes has its say too
                continue
            row = json.loads(line)
            assert row["processes"] == processes
            clips.setdefault(row["step"], {})[row["process"]] = row["clips"]
    return {step: [name for _, names in sorted(parts.items()) for name in names] for step, parts in clips.items()}


def main(workdir: str, steps: str, fsdp: str, prepared: str) -> None:
    from vps_jax.train import launch

    launch.join()
    import dataclasses

    import jax
    import pytest
    from micro_experiment import OPTIM, micro_batches, micro_config, use_micro_rooms

    from vps_jax.config import Source
    from vps_jax.data import pipeline
    from vps_jax.train import loop

    patch = pytest.MonkeyPatch()
    use_micro_rooms(patch, stream=not prepared)
    patch.setattr("vps_jax.train.sharding.MIN_SHARDED_SIZE", 1)
    optim = {**OPTIM, "name": "sgd", "clip_norm": 0.0, "lr": 0.01}
    config = micro_config(steps=int(steps), evaluate_every=100, log_every=1, fsdp=int(fsdp), optim=optim)
    if prepared:
        source = Source(prepared, short_side=32, max_side=64, task="micro", group="g", needs_instances=False)
        data = {"sources": {"clips": source}, "num_workers": 0, "chunk_steps": 1, "clip_frames": 2}
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **data))
    batches = pipeline.train_batches
    drawn = micro_batches()

    def train_batches(data, *, first_step=0, **where):
        for step, batch in enumerate(batches(data, first_step=first_step, **where), first_step):
            sums = [zlib.crc32(images.tobytes() + ids.tobytes()) for images, ids in zip(*batch.clip[:2], strict=True)]
            clips = [f"{name} {number}" for name, number in zip(batch.records, sums, strict=True)]
            row = {"process": jax.process_index(), "processes": jax.process_count(), "step": step, "clips": clips}
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
            yield next(drawn(data, first_step=step, **where))

    patch.setattr(pipeline, "train_batches", train_batches)
    loop.train(config, workdir, evaluate=lambda variables, step, label: ({"vpq": 7.0}, {}))


if __name__ == "__main__":
    main(*sys.argv[1:])
