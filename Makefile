# Two commands on a machine with make and Python 3.11, 3.12 or 3.13: `make demo` sets up and runs the main job, `make test`
# the tests. The newest of these Pythons that runs is used; PYTHON=... names another.
runs = $(shell $(1) -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $(1))
PYTHON ?= $(or $(firstword $(foreach name,python3.13 python3.12 python3.11 python3,$(call runs,$(name)))),$\
	$(error no Python 3.11, 3.12 or 3.13 found: give PYTHON=path))
BIN := .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
READY := .venv/.ready

JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 4 ? n : 4)))# each takes about 2 GB

.PHONY: demo test test-all test-install coverage lint docs notebooks ablations weights weights-keypoints weights-emotion cards \
	bench bench-baseline bench-peers bench-export bench-compare load lock clean

demo: $(READY)
	$(BIN)/emotion-ai demo

test: $(READY) # TESTS=tests/data runs a part
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow" $(TESTS)

test-all: $(READY)
	$(BIN)/python -m pytest -n $(JOBS)

test-install: $(READY) # the wheel in empty environments; downloads packages
	$(BIN)/python -m pytest $(or $(TESTS),tests/packaging)

coverage: $(READY) # fails below the floor in pyproject.toml; build/coverage/index.html shows the lines
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow" --cov --cov-report=term:skip-covered --cov-report=html

# BUDGET=quick tries the pipeline in minutes, BUDGET=cpu takes hours; DATA is the folder of the datasets;
# ABLATIONS="trainer=gpu" is passed to every run
BUDGET ?= full
DATA ?= $(EMOTION_AI_DATA)
ablations: $(READY)
	$(BIN)/emotion-ai ablations --budget $(BUDGET) $(if $(DATA),--data "$(DATA)") $(ABLATIONS)

# the recipe of the bundled weights: days on two cores, an hour or two with TRAINER=gpu, by the times of its stages;
# started again, it resumes; -j2 trains both tasks side by side
TRAINER ?= cpu_bf16
OUT := runs/weights
weights-keypoints weights-emotion: export EMOTION_AI_DATA := $(DATA)
TRAIN = $(BIN)/emotion-ai train trainer=$(TRAINER) resume=true
POINTS = data=kaggle 'data.test=$$EMOTION_AI_DATA/validation.csv*'
VOTES = 'data.vote_file=$$EMOTION_AI_DATA/fer2013new.csv'
FER = "$(call FIND,fer2013.csv*)"
MEAN = $(BIN)/python -m emotion_ai.training.calibrate
weights: weights-keypoints weights-emotion

weights-keypoints: $(READY)
	$(TRAIN) experiment=keypoints $(POINTS) out=$(OUT)/heatmap
	$(TRAIN) experiment=keypoints_regression $(POINTS) out=$(OUT)/regression
	$(TRAIN) experiment=keypoints_distilled $(POINTS) out=$(OUT)/first init_from=$(OUT)/heatmap/best.ckpt \
		'teachers=[$(OUT)/heatmap/best.ckpt,$(OUT)/regression/best.ckpt]'
	$(TRAIN) experiment=keypoints_distilled $(POINTS) out=$(OUT)/second init_from=$(OUT)/first/best.ckpt \
		'teachers=[$(OUT)/first/best.ckpt,$(OUT)/heatmap/best.ckpt,$(OUT)/regression/best.ckpt]'
	$(TRAIN) experiment=keypoints_teacher $(POINTS) out=$(OUT)/wide_heatmap 'teachers=[$(OUT)/second/best.ckpt]'
	$(TRAIN) experiment=keypoints_distilled $(POINTS) out=$(OUT)/keypoints epochs=70 patience=null distill_weight=0.6 \
		init_from=$(OUT)/second/best.ckpt 'teachers=[$(OUT)/second/best.ckpt,$(OUT)/wide_heatmap/best.ckpt]'

weights-emotion: $(READY)
	$(TRAIN) experiment=emotion data=fer2013 out=$(OUT)/long
	$(TRAIN) experiment=emotion_short data=fer2013 out=$(OUT)/short
	$(TRAIN) experiment=emotion_votes data=fer2013 $(VOTES) out=$(OUT)/votes \
		init_from=$(OUT)/long/best.ckpt 'teachers=[$(OUT)/long/best.ckpt,$(OUT)/short/best.ckpt]'
	$(TRAIN) experiment=emotion_distilled data=fer2013 $(VOTES) out=$(OUT)/emotion \
		init_from=$(OUT)/votes/best.ckpt 'teachers=[$(OUT)/votes/best.ckpt,$(OUT)/long/best.ckpt,$(OUT)/short/best.ckpt]'
	$(TRAIN) experiment=emotion_seven data=fer2013 $(VOTES) out=$(OUT)/seven \
		init_from=$(OUT)/emotion/best.ckpt 'teachers=[$(OUT)/emotion/best.ckpt]'
	$(TRAIN) experiment=emotion_seven data=fer2013 $(VOTES) out=$(OUT)/again distill_weight=0.5 task.vote_weight=0.25 \
		task.class_weight_power=0 optimizer.lr=1.5e-3 epochs=14 init_from=$(OUT)/seven/best.ckpt \
		'teachers=[$(OUT)/seven/best.ckpt,$(OUT)/emotion/best.ckpt]'
	$(MEAN) $(OUT)/again/best.ckpt $(FER) $(OUT)/again/mean.safetensors --mean $(OUT)/again/last.ckpt
	$(TRAIN) experiment=emotion_seven data=fer2013 $(VOTES) out=$(OUT)/labels distill_weight=0.4 task.vote_weight=0 \
		task.class_weight_power=0 optimizer.lr=1e-3 epochs=10 init_from=$(OUT)/again/mean.safetensors \
		'teachers=[$(OUT)/again/mean.safetensors]'
	$(MEAN) $(OUT)/labels/best.ckpt $(FER) $(OUT)/labels/mean.safetensors --mean $(OUT)/labels/last.ckpt
	$(TRAIN) experiment=emotion_teacher data=fer2013 $(VOTES) out=$(OUT)/wide
	$(TRAIN) experiment=emotion_teacher data=fer2013 $(VOTES) out=$(OUT)/resnet18 model=resnet18 optimizer.lr=2e-3
	$(TRAIN) experiment=emotion_teacher data=fer2013 $(VOTES) out=$(OUT)/votes_wide task.vote_weight=0.25 \
		task.label_smoothing=0.05
	$(TRAIN) experiment=emotion_student data=fer2013 $(VOTES) out=$(OUT)/student init_from=$(OUT)/labels/mean.safetensors \
		'teachers=[$(OUT)/wide/network.safetensors,$(OUT)/resnet18/network.safetensors,$(OUT)/votes_wide/network.safetensors]'

# the model cards of the bundled weights, from an evaluation on the datasets in DATA
CARDS := src/emotion_ai/assets/weights
FIND = $(firstword $(shell find "$(DATA)" -name '$(1)'))
EVALUATE = $(BIN)/emotion-ai evaluate checkpoint=bundled robustness=true
cards: $(READY)
	$(EVALUATE) task=keypoints data.path="$(call FIND,validation.csv*)" data.people=docs/benchmarks/validation-people.csv \
		card=$(CARDS)/keypoints.md out=runs/cards/keypoints
	$(EVALUATE) task=emotion data.path="$(call FIND,fer2013.csv*)" data.part=PublicTest \
		data.vote_file="$(call FIND,fer2013new.csv)" card=$(CARDS)/emotion.md out=runs/cards/emotion

# fails if reading, loading data, training or inference is slower than in the baseline; BENCH=quick does without the last two
BENCH ?= full
SUITE = $(BIN)/python -m emotion_ai_export.bench.suite
bench: $(READY)
	$(SUITE) $(if $(filter quick,$(BENCH)),--quick) --baseline docs/benchmarks/suite.json --fail

bench-baseline: $(READY) # after a deliberate change of speed
	$(SUITE)
	cp runs/bench/suite.json runs/bench/suite.md docs/benchmarks/
	cp runs/bench/models.png docs/images/models.png

bench-peers: $(READY) # networks of other packages, for the table of models
	$(PIP) --no-deps --target build/peers $$($(BIN)/python -m emotion_ai_export.bench.peers)

bench-export: $(READY)
	$(BIN)/python -m emotion_ai_export.bench.speed

BASELINE ?= docs/benchmarks/speed.json
bench-compare: $(READY) # fails if the SavedModel is slower than in the baseline
	$(BIN)/python -m emotion_ai_export.bench.speed --baseline $(BASELINE) --fail

load: $(READY) # against the server that runs on 8501 and 8500; LOAD="--server ... --grpc ..." names another
	$(BIN)/python -m emotion_ai_export.bench.load $(LOAD)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python .ci/prose.py

docs: $(READY) # NO_MKDOCS_2_WARNING: the theme's advertisement
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# build/notebooks/*.html, executed, with their pictures; EMOTION_AI_NOTEBOOKS=real takes the faces in EMOTION_AI_DATA
JUPYTER := $(CURDIR)/build/jupyter
notebooks: $(READY)
	IPYTHONDIR=$(JUPYTER) JUPYTER_DATA_DIR=$(JUPYTER) JUPYTER_CONFIG_DIR=$(JUPYTER) JUPYTER_RUNTIME_DIR=$(JUPYTER) \
		$(BIN)/python -m nbconvert --execute --to html --output-dir build/notebooks notebooks/*.ipynb

clean:
	rm -rf .venv build demo

# every package of every platform with its hashes, from pyproject.toml and the versions that are there; needs uv, and takes
# newer versions after: rm constraints.txt
MARKERS = python_full_version < '3.14' and |(; )?\(sys_platform == 'darwin' or sys_platform == 'linux'\) *
lock:
	uv pip compile --quiet pyproject.toml --group pinned --extra dev --universal --python-version 3.11.5 --generate-hashes \
		--no-annotate --custom-compile-command 'make lock' --output-file constraints.txt
	sed -i -E "/^[a-z]/s/$(MARKERS)//g; s/( +(and|;))+ +\\\\$$/ \\\\/" constraints.txt

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --no-deps --require-hashes --requirement constraints.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $(READY)
