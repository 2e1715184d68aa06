# Every goal makes the environment first if it is missing or its requirements changed.
PYTHON ?= python3
VENV ?= .venv
REQUIREMENTS := $(if $(shell command -v nvidia-smi 2>/dev/null),requirements.txt,requirements-cpu.txt)
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.$(REQUIREMENTS).installed

# With it set, as in many containers, every process would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-gpu acceptance lint clean

install: $(STAMP)

# --no-compile takes a third less time; the last line compiles what is imported, a sixteenth of the files
$(STAMP): $(REQUIREMENTS) pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-compile -r $(REQUIREMENTS)
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	$(RUN) -c "import vps_jax.runs.experiment, vps_jax.train.loop, vps_jax.infer.predict, vps_jax.data.pipeline"
	touch $@

demo: $(STAMP)
	$(RUN) -m vps_jax demo

test: $(STAMP) lint
	$(RUN) -m pytest -n 3 --dist worksteal

acceptance: $(STAMP)
	$(RUN) -m pytest -m acceptance

# The GPU's own tests, and the golden numbers on it.
test-gpu: $(STAMP)
	JAX_PLATFORMS=cuda,cpu $(RUN) -m pytest -m "gpu or parity"

lint: $(STAMP)
	$(RUN) -m ruff check .

clean:
	rm -rf $(VENV) .cache runs *.egg-info
