"""XLA flags for programs that run a few times, as nearly all of the tests do: their time is compilation.

`tests/conftest.py` sets them for every run without the acceptance tests, and what a test starts inherits them.
"""

FLAGS = " ".join([
    "--xla_backend_optimization_level=0",  # without LLVM's optimisation
    # the older emitter of fused loops makes less code of them; jax 0.11 has no other flag for it
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",
    "--xla_cpu_parallel_codegen_split_count=1",  # tests run side by side, not the parts of their programs
])  # fmt: skip


def xla_flags(devices: int) -> str:
    """`XLA_FLAGS` of a process with so many virtual CPU devices that compiles quickly.

    Its sums are one kernel each instead of three, and less exact in float32.
    """
    plain_sums = "--xla_disable_hlo_passes=tree_reduction_rewriter"
    return f"--xla_force_host_platform_device_count={devices} {FLAGS} {plain_sums}"
