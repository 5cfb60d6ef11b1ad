# make demo            phantoms -> H5 -> both trainings -> test metrics -> pictures, in demo_output/
# make -j2 pretrained  real scans (DATA) and phantoms of trunks -> localiser and segmenter in prediction/pretrained/; goes on
#                      where it was cut off. The README there says which scans those of the project were trained on
# make -j2 pretrained-names  the same for the two networks of --labels vertebrae
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

.PHONY: install demo pretrained pretrained-names test tests test-pythons test-lowest coverage clean

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
# CTS: scans without masks, which get those that the networks in prediction/pretrained/ predict.
DATA :=
SHAPES :=
CTS :=
ifneq ($(filter pretrained pretrained-names,$(MAKECMDGOALS)),)
$(if $(DATA),,$(error make pretrained and pretrained-names need DATA="…": scans with masks, as preprocessing.py takes them))
endif
PRETRAINING := pretraining_output
PRETRAINED_RUNS := $(PRETRAINING)/trained_models
TRUNKS = $(BIN)/python -m verse_utils.phantom --field_of_view trunk
# Names are read from a coarse view, but need many bodies.
COARSE = $(BIN)/python -m verse_utils.phantom --voxel_mm 2.5 --test 0
TRAIN_LOCALISER = $(BIN)/python training/train_heatmap.py --output $(PRETRAINED_RUNS) --augmentation strong \
	--model_args channels=12,24,48,96,160
TRAIN_SEGMENTER = $(BIN)/python training/train_segmentation.py --output $(PRETRAINED_RUNS) --precision auto \
	--model_args channels=16,32,64,128,192 --input_shape 96 96 96
# Patches of DATA and of further data sets, in a folder that is called like the target.
preprocess_masks = $(BIN)/python preprocessing.py --data_path $(DATA) $1 --output $(basename $@) --task segmentation
# Training of the binary mask: $(call train_mask,FOLDER of patches,RUN,EPOCHS)
train_mask = $(TRAIN_SEGMENTER) --data_path $(PRETRAINING)/$1/*.h5 --model_name $2 --epochs $3 --early_stopping $3 \
	--full_validation $3 --patches_per_volume 20 --bone_share 0.5 --ema 0.999

# One thread for each process: with -j2, make keeps two cores busy.
pretrained pretrained-names: export OMP_NUM_THREADS ?= 1

# Made aside and moved, so that what is there is whole.
$(PRETRAINING)/trunks_1: | $(INSTALLED)
	$(TRUNKS) --output $@.partial --training 30 --validation 3 --test 3 --seed 11 && mv $@.partial $@
$(PRETRAINING)/trunks_2: | $(INSTALLED)
	$(TRUNKS) --output $@.partial --training 8 --validation 2 --test 0 --seed 21 && mv $@.partial $@
$(PRETRAINING)/shapes: | $(INSTALLED)
	$(TRUNKS) --output $@.partial --training 6 --validation 0 --test 0 --seed 22 --shapes $(SHAPES) && mv $@.partial $@

REAL_SHAPES := $(if $(SHAPES),$(PRETRAINING)/shapes)
PHANTOMS := $(PRETRAINING)/trunks_2 $(REAL_SHAPES)
OWN_CASES := $(if $(CTS),$(PRETRAINING)/own/cases.csv)

$(PRETRAINING)/localiser.done: $(PRETRAINING)/trunks_1 $(REAL_SHAPES)
	$(BIN)/python preprocessing.py --data_path $(DATA) $^ --output $(PRETRAINING)/views --task heatmap
	$(TRAIN_LOCALISER) --data_path $(PRETRAINING)/views/*.h5 --model_name localiser --epochs 60 --early_stopping 60
	touch $@

$(PRETRAINING)/own.done: | $(INSTALLED)
	$(BIN)/python inference.py --input $(CTS) --tta --no_preview --output $(PRETRAINING)/predicted --as_dataset $(PRETRAINING)/own
	touch $@

$(PRETRAINING)/masks.done: $(PHANTOMS)
	$(call preprocess_masks,$(PHANTOMS))
	touch $@
$(PRETRAINING)/masks_and_cts.done: $(PHANTOMS) $(PRETRAINING)/own.done
	$(call preprocess_masks,$(PHANTOMS) $(OWN_CASES))
	touch $@
$(PRETRAINING)/real_shapes.done: $(REAL_SHAPES) $(if $(CTS),$(PRETRAINING)/own.done) | $(INSTALLED)
	$(call preprocess_masks,$(REAL_SHAPES) $(OWN_CASES))
	touch $@

# On the scans with masks and all phantoms; then on the CTs, too; at last, for a while and twice, with strong and with light
# augmentation, without the phantoms of trunks, whose vertebrae have simpler shapes than real ones. The mean of the weights of the
# last three trainings is kept.
MASKS := $(if $(CTS),masks_and_cts,masks)
$(PRETRAINING)/segmenter_1.done: $(PRETRAINING)/masks.done
	$(call train_mask,masks,segmenter_1,36)
	touch $@
$(PRETRAINING)/segmenter_2.done: $(PRETRAINING)/segmenter_1.done $(PRETRAINING)/$(MASKS).done
	$(call train_mask,$(MASKS),segmenter_2,60) --init_from segmenter_1
	touch $@
$(PRETRAINING)/segmenter_3.done: $(PRETRAINING)/segmenter_2.done $(PRETRAINING)/real_shapes.done
	$(call train_mask,real_shapes,segmenter_3,16) --init_from segmenter_2 --augmentation strong --lr 0.5
	touch $@
$(PRETRAINING)/segmenter_4.done: $(PRETRAINING)/segmenter_2.done $(PRETRAINING)/real_shapes.done
	$(call train_mask,real_shapes,segmenter_4,16) --init_from segmenter_2 --lr 0.5
	touch $@

pretrained: $(addprefix $(PRETRAINING)/,segmenter_3.done segmenter_4.done localiser.done)
	$(BIN)/python -m prediction.pretrained --runs $(PRETRAINED_RUNS) --output prediction/pretrained \
		--heatmap_model localiser --segmentation_model segmenter_2 segmenter_3 segmenter_4

$(PRETRAINING)/names_phantoms_1: | $(INSTALLED)
	$(COARSE) --output $@.partial/trunks --field_of_view trunk --training 100 --validation 6 --seed 31
	$(COARSE) --output $@.partial/bodies --field_of_view body --training 80 --validation 4 --seed 32
	$(COARSE) --output $@.partial/more_trunks --field_of_view trunk --training 100 --validation 0 --seed 33
	$(if $(SHAPES),$(COARSE) --output $@.partial/shapes --field_of_view trunk --training 20 --validation 0 --seed 12 \
		--shapes $(SHAPES))
	mv $@.partial $@
$(PRETRAINING)/names_phantoms_2: | $(INSTALLED)
	$(COARSE) --output $@.partial/trunks --field_of_view trunk --training 100 --validation 0 --seed 34
	$(COARSE) --output $@.partial/bodies --field_of_view body --training 100 --validation 0 --seed 35
	$(COARSE) --output $@.partial/more_trunks --field_of_view trunk --training 100 --validation 0 --seed 36
	mv $@.partial $@

# First in a coarse view, then in a finer one with more phantoms.
$(PRETRAINING)/names.done: $(PRETRAINING)/localiser.done $(PRETRAINING)/names_phantoms_1 $(PRETRAINING)/names_phantoms_2
	$(BIN)/python preprocessing.py --data_path $(DATA) $(PRETRAINING)/names_phantoms_1/* --task heatmap \
		--output $(PRETRAINING)/coarse_views
	$(TRAIN_LOCALISER) --data_path $(PRETRAINING)/coarse_views/*.h5 --model_name names_1 --labels vertebrae --epochs 24 \
		--early_stopping 40 --init_from localiser --precision auto
	$(BIN)/python preprocessing.py --data_path $(DATA) $(PRETRAINING)/names_phantoms_[12]/* --task heatmap \
		--output $(PRETRAINING)/fine_views --input_shape 96 96 192
	$(TRAIN_LOCALISER) --data_path $(PRETRAINING)/fine_views/*.h5 --model_name names_2 --labels vertebrae --epochs 6 \
		--early_stopping 40 --init_from names_1 --precision auto
	touch $@

$(PRETRAINING)/single.done: $(PRETRAINING)/segmenter_3.done $(PRETRAINING)/trunks_1
	$(BIN)/python preprocessing.py --data_path $(DATA) $(PRETRAINING)/trunks_1 --output $(PRETRAINING)/single_vertebrae \
		--task segmentation
	$(TRAIN_SEGMENTER) --data_path $(PRETRAINING)/single_vertebrae/*.h5 --model_name single --labels single --epochs 24 \
		--full_validation 8 --patches_per_volume 10 --bone_share 0.95 --augmentation strong --optimizer adamw \
		--init_from segmenter_3
	touch $@

pretrained-names: $(PRETRAINING)/names.done $(PRETRAINING)/single.done
	$(BIN)/python -m prediction.pretrained --runs $(PRETRAINED_RUNS) --output prediction/pretrained \
		--names_model names_2 --single_model single

clean:
	rm -rf .venv .venv-* $(DEMO) *.egg-info
