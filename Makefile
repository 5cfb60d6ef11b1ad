# make demo            phantoms -> H5 -> both trainings -> test metrics -> pictures, in demo_output/
# make test            lint, types and tests
# make coverage        the tests, and the share of lines of each file that they run; fails under 85 % in any
# make test-pythons    the tests on the oldest and the newest Python, where this machine has them
# make test-lowest     the tests with the lowest versions that pyproject.toml allows
# Each makes its virtual environment first (.venv, .venv-3.10, .venv-3.13 or .venv-lowest), and installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN = $(VENV)/bin
INSTALLED := $(VENV)/.installed

PYTHONS := 3.10 3.13
LOWEST := .venv-lowest
LOWEST_TORCH := $(shell sed -n 's/.*"torch>=\([0-9.]*\).*/\1/p' pyproject.toml)

# Two processes with one thread each. Each starts with half of the files, as a file's tests share fixtures; the one that
# is through first takes over tests of the other. Byte code is kept, or each process would compile the project anew.
PYTEST = env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

.PHONY: install demo test tests test-pythons test-lowest coverage clean

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

install: $(INSTALLED)

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2 .
	$(PYTEST)

tests: $(INSTALLED)
	$(PYTEST)

test-pythons:
	.ci/test-pythons $(PYTHONS)

# pip installs torch first, without CUDA where such a wheel is at hand; uv keeps what is installed.
$(LOWEST)/.installed test-lowest: BIN = $(LOWEST)/bin
$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/pip install --quiet uv torch==$(LOWEST_TORCH)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --resolution lowest-direct \
		--requirement pyproject.toml --extra test --extra cluster torch==$(LOWEST_TORCH)
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

test-lowest: $(LOWEST)/.installed
	$(PYTEST)

coverage: $(INSTALLED)
	$(PYTEST) --cov --cov-report=term --cov-report=json:.coverage.json
	$(BIN)/python -c 'import json; files = json.load(open(".coverage.json"))["files"]; \
		low = [name for name, file in files.items() if file["summary"]["percent_covered"] < 85]; \
		exit("under 85 %: " + ", ".join(low) if low else 0)'

DEMO := demo_output
# A narrow network and small, tall patches: on two cores, many steps teach more than wide ones, and height tells whether
# the scan's end cuts a vertebra.
DEMO_RUN := --model_args channels=8,16,64,128,192 --precision auto --output $(DEMO)/trained_models

demo: $(INSTALLED)
	$(BIN)/python -m verse_utils.phantom --output $(DEMO)/phantoms --training 44 --validation 4 --test 4
	$(BIN)/python preprocessing.py --data_path $(DEMO)/phantoms --output $(DEMO)/preprocessed
	$(BIN)/python training/train_heatmap.py --data_path $(DEMO)/preprocessed/phantoms_verse19_heatmap_64x64x128.h5 \
		--model_name localiser --epochs 20 $(DEMO_RUN)
	$(BIN)/python training/train_segmentation.py --data_path $(DEMO)/preprocessed/phantoms_verse19_segmentation_1mm.h5 \
		--model_name segmenter --epochs 10 --input_shape 64 64 96 --patches_per_volume 10 --bone_share 0.67 $(DEMO_RUN)

clean:
	rm -rf .venv .venv-* $(DEMO) *.egg-info
