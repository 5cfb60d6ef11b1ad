# make demo    phantoms -> H5 -> both trainings -> test metrics -> pictures, in demo_output/
# make test    lint, types and tests
# Both make .venv first, and install what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test clean

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/pytest

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
	rm -rf $(VENV) $(DEMO) *.egg-info
