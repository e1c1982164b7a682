# make reproduce [SCALE=smoke|laptop|paper] [EXPERIMENTS="isnet/…"] [SEEDS=n] [JOBS=n] [DEVICE=cuda]
# make check (a minute) | test [ALL=1] | scales | cluster | lab | report | site | notebooks | bench | sweep | wheel | lock | clean
#
# The first of them makes the virtual environment; with PYTHON=… from another Python, with VENV=… elsewhere,
# with TORCH_INDEX=… from another index of torch builds (README: a CPU-only build).

PYTHON ?= python3
VENV ?= .venv
SCALE ?= smoke
JOBS ?= all
override ALL := $(or $(value ALL),$(value CI),$(if $(wildcard .git),,1))
absolute = $(if $(filter /%,$(firstword $1)),$1,$(CURDIR)/$1)
override ATTRAIN_RESULTS := $(call absolute,$(or $(value ATTRAIN_RESULTS),results))
override ATTRAIN_DATA := $(call absolute,$(or $(value ATTRAIN_DATA),data))

# What is given is text, and neither make nor a shell looks for commands in it: a variable is its value as it stands,
# which recipes take from their environment, in quotes.
GIVEN := PYTHON VENV TORCH_INDEX SCALE EXPERIMENTS JOBS SEEDS DEVICE ONLY KEEP BASE
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export ALL ATTRAIN_RESULTS ATTRAIN_DATA $(GIVEN)
$(foreach sign,; & | < > * ? ` " ' $$ \\,$(if $(findstring $(sign),$(VENV)),$(error VENV is a folder, and its name holds $(sign))))
BIN := $(VENV)/bin
READY := $(VENV)/.attrain-ready

.PHONY: help install zoo reproduce check style tests scales cluster validate test lab report site bench sweep notebooks wheel lock clean

help:
	@sed -n '1,2s/^# //p' Makefile

install: $(READY)

# The lock names every package, so nothing is resolved at install time. An index of other torch builds has
# other files under the same versions: torch and torchvision then come from there, and CUDA's packages stay out.
# They come first, so that a mistyped index ends it in seconds, and not after all else is there.
$(READY): requirements.lock pyproject.toml lib/pyproject.toml
	@"$$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "error: attrain needs Python 3.11, 3.12 or 3.13, and $$PYTHON is $$("$$PYTHON" --version 2>&1); try make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; "$$PYTHON" -m venv $(VENV); }
	@echo "installing the pinned packages ($(if $(TORCH_INDEX),torch from the index given,about 6 GB with CUDA's), two minutes)"
ifdef TORCH_INDEX
	@wanted=$$(sed -nE 's/^(torch(vision)?==[^ ]+).*/\1/p' requirements.lock | tr '\n' ' '); \
	  $(BIN)/pip install -q --no-deps --retries 1 --index-url "$$TORCH_INDEX" $$wanted || \
	  { echo "error: TORCH_INDEX must be the address of an index of packages that has $$wanted(README: a CPU-only build), got $$TORCH_INDEX" >&2; exit 1; }
	@awk '/^[^ #]/ { skip = /^(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z]*)==/ } !skip' requirements.lock > $(VENV)/requirements.txt
	@$(BIN)/pip install -q --no-deps --require-hashes -r $(VENV)/requirements.txt
else
	@$(BIN)/pip install -q --no-deps --require-hashes -r requirements.lock
endif
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e lib -e .
	@touch $@

# The models of other people's that the sweep and some of CI's tests explain. Not everyone's, as they slow down imports.
zoo: $(READY)
	@$(BIN)/pip install -q --no-deps --require-hashes -r requirements-zoo.lock

reproduce: $(READY)
	@$(BIN)/python -m studies.batch --scale="$$SCALE" --experiments="$$EXPERIMENTS" --jobs="$$JOBS" \
	  $${SEEDS:+--seeds="$$SEEDS"} $${DEVICE:+--device="$$DEVICE"}

# While one works: what is wrong with the library, in a minute. Of torchvision's networks two; without the tests that
# take every operation, spelling and form of input.
LATER := device wheel silent every_function every_spelling random_graphs inputs targets methods_perturbation
check: $(READY) style
	@$(PYTEST) -m "not slow and not ci" -k "not torchvision or resnet18 or densenet121" $(addprefix --ignore tests/attrain/test_,$(addsuffix .py,$(LATER))) tests/attrain lib/attrain

# Before a push. Notebooks are run again if their script or outputs differ from BASE's; ALL=1, as in CI, runs them all,
# and the tests marked `ci`. With DEVICE=cuda the engine's tests only, there; nobody has run these on CUDA yet.
# DEVICE=pretended runs them on a device that refuses what CUDA refuses, anywhere.
ifdef DEVICE
test: $(READY)
	@ATTRAIN_TEST_DEVICE="$$DEVICE" $(BIN)/python -m pytest -m "not slow" $(ENGINE)
else
test: style tests validate
endif

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope

# The tests of the engine, which make what they need on torch's default device; but for two that count torch's function
# modes, of which the default device is one, and those that count tensors, which a device's thread may let go of later.
ENGINE := $(patsubst %,tests/attrain/test_%.py,attribution methods_deeplift methods_zplus engine_unseen fast_convolution) -k "not comes_back_as_it_went_in and not is_untouched and not left_behind"

style: $(READY)
	@$(BIN)/ruff check -q . && $(BIN)/ruff format --check -q .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy

tests: $(READY)
	@$(BIN)/python -m studies.pages --check
	@$(PYTEST) -m "not slow and not scales and not slurm$(if $(ALL),, and not ci)" --doctest-glob=README.md tests lib data_prep README.md

# Every file of notebooks/params, made short: a quarter of an hour on two quiet cores.
scales: $(READY)
	@$(PYTEST) -m scales --dist load tests/notebooks/test_params.py

# A batch on a Slurm of this machine, which the test starts and ends itself; needs slurm-wlm and munge, or is skipped.
cluster: $(READY)
	@$(BIN)/python -m pytest -rs -m slurm tests/studies/test_slurm.py

# In a results folder of their own, so that they really run.
validate: $(READY)
	@base=$${BASE:-$$(git rev-parse --verify -q --symbolic-full-name origin/main || echo main)}; chosen=notebooks; \
	  test -n "$$ALL" || chosen=$$({ git diff --name-only "$$(git merge-base HEAD "$$base")" -- notebooks; \
	    git ls-files -o --exclude-standard notebooks; } | sed -nE 's/\.(py|ipynb)$$/.ipynb/p' | sort -u | xargs -r ls 2>/dev/null); \
	  test -n "$$chosen" || { echo "no notebook differs from $$base" && exit; }; \
	  scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && ATTRAIN_RESULTS="$$scratch" \
	  $(BIN)/python -m pytest -n 2 --dist loadscope -o addopts= -o filterwarnings= --nbval-lax --nbval-current-env $$chosen

# From here, and not from notebooks/: only so are notebooks saved with their scripts, and results within reach.
lab: $(READY)
	@$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/index.ipynb --KernelManager.transport_encryption=auto

report: $(READY)
	@$(BIN)/python -m studies.pages --write

# README, the notebooks with the outputs that they hold, results and the library's reference as static pages that need
# no network: build/site/index.html. What `-W` lets through is what tests/notebooks/test_site.py looks for.
site: $(READY)
	@$(BIN)/python -m sphinx -q -W --keep-going -c docs -d build/doctrees . build/site
	@ATTRAIN_SITE=build/site $(BIN)/python -m pytest -q tests/notebooks/test_site.py
	@echo $(abspath build/site/index.html)

# All cases, ten minutes on two quiet cores; ONLY=PATTERN some of them. KEEP=LABEL keeps the record with the code, as
# notebooks/results/benchmarks/<device>-LABEL.json: notebooks/benchmarks.ipynb shows before and after.
# In memory that is not handed back, as runs of studies have it (studies.run).
bench: $(READY)
	@MALLOC_TRIM_THRESHOLD_=$${MALLOC_TRIM_THRESHOLD_-1073741824} MALLOC_MMAP_THRESHOLD_=$${MALLOC_MMAP_THRESHOLD_-33554432} \
	  $(BIN)/python -m studies.bench $${DEVICE:+--device="$$DEVICE"} $${ONLY:+--only="$$ONLY"} $${KEEP:+--keep="$$KEEP"}

# Networks of torchvision, timm and transformers: right, refused or wrong; goes on where it was.
sweep: zoo
	@$(BIN)/python -m studies.bench.sweep

# Bring each notebook up to its script and run it as it is, at smoke scale, with the outputs kept in it.
notebooks: $(READY)
	@$(BIN)/python -m studies.pairs
	@$(BIN)/jupytext -q --update --to ipynb notebooks/*.py notebooks/*/*.py
	@$(BIN)/python -m studies.run --keep-outputs -- "$${EXPERIMENTS:-all}"

# The library as it goes to an index: dist/attrain-*.whl, dist/attrain-*.tar.gz.
wheel: $(READY)
	@$(BIN)/python -m build -q --no-isolation --outdir dist lib

# The zoo's lock holds what the main one has not, at versions that go with it.
UV := $(or $(shell command -v uv),build/uv/bin/uv)
COMPILE = $(UV) pip compile -q --universal --generate-hashes --no-emit-package attrain --custom-compile-command "make lock" pyproject.toml
lock: $(if $(filter build/%,$(UV)),$(UV))
	$(COMPILE) --extra lab --extra test --extra docs --extra bench -o requirements.lock
	$(COMPILE) --extra zoo -c requirements.lock -o requirements-zoo.lock \
	  $$(sed -nE 's/^([a-z0-9.-]+)==.*/--no-emit-package \1/p' requirements.lock | sort -u)

build/uv/bin/uv:
	"$$PYTHON" -m venv build/uv && build/uv/bin/pip install -q uv

# Results and data stay.
clean:
	rm -rf $(VENV) build dist lib/build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis *.egg-info lib/*.egg-info .snakemake
	find lib data_prep tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
