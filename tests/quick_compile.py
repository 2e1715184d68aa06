"""XLA flags for programs that run a few times, as nearly all of the tests do: their time is compilation."""

import jax

OPTIONS = {"xla_backend_optimization_level": 0}  # without LLVM's optimisation
if jax.__version_info__ < (0, 11):  # later versions have one emitter of fused loops; this one makes less code of them
    OPTIONS["xla_cpu_use_fusion_emitters"] = False


def xla_flags(devices: int) -> str:
    """`XLA_FLAGS` of a process with so many virtual CPU devices that compiles quickly."""
    quick = [f"--{name}={str(value).lower()}" for name, value in OPTIONS.items()]
    return " ".join([f"--xla_force_host_platform_device_count={devices}", *quick])
