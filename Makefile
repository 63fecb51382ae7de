# One environment, .venv, made and installed once and used by every target.
# Works with GNU make 3.81 (macOS) and later. The parts: targets, then the environment.

VENV := .venv
RUN  := $(VENV)/bin/python

# What `make lab` passes on to Jupyter Lab, for example LAB_OPTIONS="--no-browser --port=8890 --allow-root".
LAB_OPTIONS :=

# What `make soak` passes on, for example SOAK_OPTIONS="--first 4711 --schedules 1": one schedule again.
SOAK_OPTIONS :=

# What `make serve`, `make replicas` and `make load` pass on, for example ARGS="--port 8123 --rows 16".
ARGS :=

# Two tests at a time, each on one core.
TEST := OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses=2 --dist=loadgroup

# Further environments: the oldest supported transformers, with the tests that run in it; other libraries.
OLDEST := .venv-oldest
PEERS := .venv-peers
VLLM := .venv-vllm
LOAD := .venv-load
CANARY_TESTS := $(addprefix tests/test_,helpers.py utils.py properties.py models.py kv_cache.py request.py checks.py round_trips.py)

# The Python that .venv is made from: the one named by PYTHON=..., else the first of these that fits.
PYTHONS := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11)

# A user's pip setting for installs outside environments would make installs inside one fail.
export PIP_USER = 0
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# A tokenizer that has used threads warns when its process forks; the lessons' texts need no threads.
export TOKENIZERS_PARALLELISM = false

.PHONY: help lessons lab book serve replicas execute figures bench engine peers load check test museum soak soak-server canary \
        lint clean new-environment
.DEFAULT_GOAL := help

help: ## show this list
	@echo "Usage: make TARGET [PYTHON=python3.12] [LAB_OPTIONS=--no-browser]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile

lessons: $(VENV)/.installed-serving ## run all lessons; results and pages go to build/lessons/
	@$(RUN) tools/lessons.py run

lab: $(VENV)/.installed-serving ## open copies of the lessons, yours to write in, in Jupyter Lab
	@$(RUN) tools/lab.py $(LAB_OPTIONS)

book: $(VENV)/.installed-book ## the notes, the lessons and the code's docstrings as one book, in build/book/
	@$(RUN) tools/build_book.py

serve: $(VENV)/.installed-serving ## serve the storyteller to any client of OpenAI's interface, on port 8000
	@$(RUN) -m serving $(ARGS)

replicas: $(VENV)/.installed-replicas ## serve it by two replicas behind one address, on Ray Serve
	@$(RUN) -m serving.replicas $(ARGS)

execute: $(VENV)/.installed-serving ## execute the committed notebooks again, in place
	@$(RUN) tools/lessons.py execute

figures: $(VENV)/.installed-run ## draw the notes' drawings again
	@$(RUN) notes/figures/draw.py

bench: $(VENV)/.installed-run ## measure the ladder: one workload, lesson by lesson (about 20 minutes)
	@$(RUN) benchmarks/ladder.py

engine: $(VENV)/.installed-run ## measure the engine: what was aimed at, and where its time goes
	@$(RUN) benchmarks/engine_measures.py

peers: $(VENV)/.installed-run $(PEERS)/.installed $(VLLM)/.installed ## the same workload on other libraries (two more environments)
	@$(RUN) benchmarks/peers.py

load: $(VENV)/.installed-dev $(VLLM)/.installed $(LOAD)/.installed ## measure the server beside vLLM's (two more environments)
	@$(RUN) benchmarks/load.py $(ARGS)
	@$(RUN) benchmarks/generators.py $(ARGS)

check: lint ## lint and the quick tests: about 4 minutes
	@$(TEST) -m "not slow and not notebooks"

test: lint ## lint, then run every test and measure how much of code/ they cover
	@$(TEST) --cov --cov-report=term-missing

museum: $(VENV)/.installed-dev ## put each known bug back and name the test that catches it
	@cd tests && ../$(RUN) -m bug_museum

soak: $(VENV)/.installed-dev ## run 100,000 random schedules of the engine, each compared with requests alone (takes long)
	@cd tests && OMP_NUM_THREADS=1 ../$(RUN) -m soak $(SOAK_OPTIONS)

soak-server: $(VENV)/.installed-dev ## twenty minutes of traffic and 10,000 generated requests for the server
	@SERVING_SOAK_S=1200 SERVING_CASES=10000 OMP_NUM_THREADS=1 $(RUN) -m pytest tests/test_serving_soak.py

canary: $(VENV)/.installed-dev $(OLDEST)/.installed ## compare tokens with the oldest supported transformers
	@$(RUN) tools/canary.py --against $(OLDEST)/bin/python
	@$(OLDEST)/bin/python -m pytest -p no:cacheprovider $(CANARY_TESTS)

lint: $(VENV)/.installed-dev ## check the style of code and notebooks
	@$(RUN) tools/lint.py

clean: ## remove build/ and caches (lab/, environments and training checkpoints stay)
	@rm -rf build .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	@find . -name '$(VENV)*' -prune -o -name .git -prune -o -path ./lab -prune -o \
	    -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# The environment. A stamp is written only after its install has succeeded: an interrupted install is
# taken up again, a finished one is not repeated until its requirements file changes.

# True while .venv holds a Python that still runs, fits, and can install; otherwise .venv is made anew.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
VENV_WORKS := $(shell $(RUN) -c 'import pip._internal; $(FITS)' 2>/dev/null && echo yes)

$(VENV)/.installed-run: requirements.txt $(if $(VENV_WORKS),,new-environment)
	@echo "Installing the lessons' packages into $(VENV) (several minutes the first time: torch is large) ..."
	@$(RUN) -m pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/.installed-serving: serving/requirements.txt $(VENV)/.installed-run
	@echo "Installing what the server adds into $(VENV) (under a minute) ..."
	@$(RUN) -m pip install --quiet --requirement serving/requirements.txt
	@touch $@

$(VENV)/.installed-replicas: serving/requirements-replicas.txt $(VENV)/.installed-serving
	@echo "Installing Ray Serve into $(VENV) (a minute or two) ..."
	@$(RUN) -m pip install --quiet --requirement serving/requirements-replicas.txt
	@touch $@

$(VENV)/.installed-book: book/requirements.txt $(VENV)/.installed-run
	@echo "Installing what the book adds into $(VENV) (under a minute) ..."
	@$(RUN) -m pip install --quiet --requirement book/requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt serving/requirements-tests.txt $(VENV)/.installed-serving $(VENV)/.installed-book
	@echo "Installing what the tests add into $(VENV) (under a minute) ..."
	@$(RUN) -m pip install --quiet --requirement requirements-dev.txt --requirement serving/requirements-tests.txt
	@touch $@

$(OLDEST)/.installed: requirements-oldest.txt $(VENV)/.installed-run
	@echo "Installing the oldest supported transformers into $(OLDEST) ..."
	@$(RUN) -m venv --clear $(OLDEST)
	@$(OLDEST)/bin/python -m pip install --quiet --requirement requirements-oldest.txt
	@touch $@

$(PEERS)/.installed: benchmarks/requirements.txt $(VENV)/.installed-run
	@echo "Installing other libraries to compare with into $(PEERS) ..."
	@$(RUN) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt
	@touch $@

$(LOAD)/.installed: benchmarks/requirements-load.txt $(VENV)/.installed-run
	@echo "Installing load generators into $(LOAD) (2 GB) ..."
	@$(RUN) -m venv --clear $(LOAD)
	@$(LOAD)/bin/python -m pip install --quiet --requirement benchmarks/requirements-load.txt
	@touch $@

# vLLM does without the packages that are taken out again; they break transformers where they do not match torch.
# There is no vLLM for every machine: where it cannot be installed, the comparison goes on without it.
$(VLLM)/.installed: benchmarks/requirements-vllm.txt $(VENV)/.installed-run
	@echo "Installing vLLM into $(VLLM) (3.4 GB) ..."
	@$(RUN) -m venv --clear $(VLLM)
	@if $(VLLM)/bin/python -m pip install --quiet --requirement benchmarks/requirements-vllm.txt; then \
	    $(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec torchvision && touch $@; \
	else \
	    echo "vLLM is left out: it could not be installed (see benchmarks/requirements-vllm.txt)." >&2; \
	    rm -rf $(VLLM); \
	fi

new-environment:
	@found=; \
	for python in $(PYTHONS); do \
	    if "$$python" -c '$(FITS)' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "The lessons need Python 3.11, 3.12 or 3.13. None of these is one: $(PYTHONS)." >&2; \
	    echo "Install one, or say where yours is: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	    exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	    version=$$("$$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "$$found cannot create environments: its venv module is not installed." >&2; \
	    echo "On Debian and Ubuntu: sudo apt install python$$version-venv" >&2; \
	    exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$found" --version) ..."; \
	"$$found" -m venv --clear $(VENV)
