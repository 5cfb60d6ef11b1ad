# make demo            phantoms -> H5 -> both trainings -> test metrics -> pictures, in demo_output/
# make pretrained      real scans (DATA) and phantoms of trunks -> the networks in prediction/pretrained/; goes on where it
#                      was cut off. docs/results.md says which scans those that come with the project were trained on
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

.PHONY: install demo pretrained test tests test-pythons test-lowest coverage clean

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

# What the networks of make pretrained are trained on besides phantoms:
# DATA: scans with masks, as preprocessing.py takes them: VerSe, or tables of images and masks. Needed.
# SHAPES: a folder of masks, around which further phantoms are made.
# CTS: scans without masks; later trainings of the segmenter are taught by the first one's predictions of them.
DATA :=
SHAPES :=
CTS :=
ifneq ($(filter pretrained,$(MAKECMDGOALS)),)
$(if $(DATA),,$(error make pretrained needs DATA="…": scans with masks, as preprocessing.py takes them))
endif
PRETRAINING := pretraining_output
TRUNKS = $(BIN)/python -m verse_utils.phantom --field_of_view trunk
# Names are read from a coarse view, but need many bodies.
COARSE = $(BIN)/python -m verse_utils.phantom --voxel_mm 2.5 --test 0
LOCALISER := --augmentation strong --model_args channels=12,24,48,96,160 --output $(PRETRAINING)/trained_models
SEGMENTER := --augmentation strong --model_args channels=8,16,64,128,192 --output $(PRETRAINING)/trained_models \
	--bone_share 0.5

# Made aside and moved, so that what is there is whole.
$(PRETRAINING)/trunks_1: | $(INSTALLED)
	$(TRUNKS) --output $@.partial --training 30 --validation 3 --test 3 --seed 11 && mv $@.partial $@
$(PRETRAINING)/trunks_2: | $(INSTALLED)
	$(TRUNKS) --output $@.partial --training 8 --validation 2 --test 0 --seed 21 && mv $@.partial $@
$(PRETRAINING)/shapes_1: | $(INSTALLED)
	$(TRUNKS) --output $@.partial --training 10 --validation 0 --test 0 --seed 12 --shapes $(SHAPES) && mv $@.partial $@
$(PRETRAINING)/shapes_2: | $(INSTALLED)
	$(TRUNKS) --output $@.partial --training 6 --validation 0 --test 0 --seed 22 --shapes $(SHAPES) && mv $@.partial $@

$(PRETRAINING)/names_1: | $(INSTALLED)
	$(COARSE) --output $@.partial/trunks --field_of_view trunk --training 100 --validation 6 --seed 31
	$(COARSE) --output $@.partial/bodies --field_of_view body --training 80 --validation 4 --seed 32
	$(COARSE) --output $@.partial/more_trunks --field_of_view trunk --training 100 --validation 0 --seed 33
	$(if $(SHAPES),$(COARSE) --output $@.partial/shapes --field_of_view trunk --training 20 --validation 0 --seed 12 \
		--shapes $(SHAPES))
	mv $@.partial $@
$(PRETRAINING)/names_2: | $(INSTALLED)
	$(COARSE) --output $@.partial/trunks --field_of_view trunk --training 100 --validation 0 --seed 34
	$(COARSE) --output $@.partial/bodies --field_of_view body --training 100 --validation 0 --seed 35
	$(COARSE) --output $@.partial/more_trunks --field_of_view trunk --training 100 --validation 0 --seed 36
	mv $@.partial $@

PHANTOMS_1 = $(PRETRAINING)/trunks_1 $(if $(SHAPES),$(PRETRAINING)/shapes_1)
PHANTOMS_2 = $(PRETRAINING)/trunks_2 $(if $(SHAPES),$(PRETRAINING)/shapes_1)
PHANTOMS_3 = $(PRETRAINING)/trunks_2 $(if $(SHAPES),$(PRETRAINING)/shapes_2)
# By the segmenter $(1): the CTs without masks get theirs, in the folder $(2).
PREDICT = $(if $(CTS),$(BIN)/python inference.py --input $(CTS) --runs $(PRETRAINING)/trained_models --no_preview --tta \
	--segmentation_model $(1) --heatmap_model localiser --output $(PRETRAINING)/predicted_by_$(1) --as_dataset $(2))

pretrained: $(INSTALLED) $(PHANTOMS_1) $(PHANTOMS_2) $(PHANTOMS_3) $(PRETRAINING)/names_1 $(PRETRAINING)/names_2
	$(BIN)/python preprocessing.py --data_path $(DATA) $(PHANTOMS_1) --output $(PRETRAINING)/preprocessed_1
	$(BIN)/python training/train_heatmap.py --data_path $(PRETRAINING)/preprocessed_1/*_heatmap_64x64x128.h5 \
		--model_name localiser --epochs 60 --early_stopping 60 $(LOCALISER)
	$(BIN)/python training/train_segmentation.py --data_path $(PRETRAINING)/preprocessed_1/*_segmentation_1mm.h5 \
		--model_name segmenter_1 --epochs 20 --full_validation 20 --input_shape 64 64 96 --patches_per_volume 20 $(SEGMENTER)
	$(call PREDICT,segmenter_1,$(PRETRAINING)/own_1)
	$(BIN)/python preprocessing.py --data_path $(DATA) $(PHANTOMS_2) $(if $(CTS),$(PRETRAINING)/own_1/cases.csv) \
		--output $(PRETRAINING)/preprocessed_2 --task segmentation
	$(BIN)/python training/train_segmentation.py --data_path $(PRETRAINING)/preprocessed_2/*_segmentation_1mm.h5 \
		--model_name segmenter_2 --epochs 24 --full_validation 24 --input_shape 96 96 96 --patches_per_volume 20 $(SEGMENTER) \
		--init_from segmenter_1 --lr 0.5 --precision auto
	$(call PREDICT,segmenter_2,$(PRETRAINING)/own_2)
	$(BIN)/python preprocessing.py --data_path $(DATA) $(PHANTOMS_3) $(if $(CTS),$(PRETRAINING)/own_2/cases.csv) \
		--output $(PRETRAINING)/preprocessed_3 --task segmentation
	$(BIN)/python training/train_segmentation.py --data_path $(PRETRAINING)/preprocessed_3/*_segmentation_1mm.h5 \
		--model_name segmenter_3 --epochs 36 --full_validation 36 --input_shape 96 96 96 --patches_per_volume 16 $(SEGMENTER) \
		--init_from segmenter_2 --lr 0.5 --ema 0.999 --precision auto
	$(BIN)/python preprocessing.py --data_path $(DATA) $(PRETRAINING)/names_1/* --task heatmap \
		--output $(PRETRAINING)/preprocessed_names_1
	$(BIN)/python training/train_heatmap.py --data_path $(PRETRAINING)/preprocessed_names_1/*.h5 --model_name names_1 \
		--labels vertebrae --epochs 24 --early_stopping 40 --init_from localiser --precision auto $(LOCALISER)
	$(BIN)/python preprocessing.py --data_path $(DATA) $(PRETRAINING)/names_[12]/* --task heatmap \
		--output $(PRETRAINING)/preprocessed_names_2 --input_shape 96 96 192
	$(BIN)/python training/train_heatmap.py --data_path $(PRETRAINING)/preprocessed_names_2/*.h5 --model_name names_2 \
		--labels vertebrae --epochs 6 --early_stopping 40 --init_from names_1 --precision auto $(LOCALISER)
	$(BIN)/python training/train_segmentation.py --data_path $(PRETRAINING)/preprocessed_1/*_segmentation_1mm.h5 \
		--model_name single --labels single --epochs 24 --full_validation 8 --input_shape 96 96 96 --patches_per_volume 10 \
		$(SEGMENTER) --bone_share 0.95 --optimizer adamw --init_from segmenter_3
	$(BIN)/python -m prediction.pretrained --runs $(PRETRAINING)/trained_models \
		--segmentation_model segmenter_3 --heatmap_model localiser --names_model names_2 --single_model single

clean:
	rm -rf .venv .venv-* $(DEMO) *.egg-info
