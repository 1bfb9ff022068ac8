# What a newcomer runs: `make run` paints a first picture and a first clip, `make test` checks that everything works. Both make .venv first.
#
#     make env TORCH_INDEX=https://download.pytorch.org/whl/cu130    another torch than pip's default
#     make env PYTHON=python3.12                                     another Python (3.10 or newer)
#     make test WORKERS=                                             one process, for a machine short of memory

PYTHON ?= python3
TORCH_INDEX ?=
TORCH := torch==2.13.0
MEDIAPIPE := mediapipe==0.10.21
# One thread each: two processes of two threads wait for one another on two cores, up to ten times as long
WORKERS ?= -n 2 --dist worksteal

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help env run demo test test-all lint examples readme-gif clean

help:
	@echo "make run       paint the person of one picture in the pose of another and through a dance, write out/"
	@echo "make demo      a page in the browser, on this computer: a photo and a driving clip in, a clip out"
	@echo "make test      the tests, in ten to twenty minutes on two cores; make test-all has the slow ones too"
	@echo "make lint      ruff and pyright"
	@echo "make env       the environment $(VENV), which all of these make when it is missing or old"
	@echo "make clean     remove $(VENV) and what tools left behind"

env: $(STAMP)

# torch comes first and by itself, so that the index chosen for it serves nothing else. MediaPipe goes in without its
# dependencies: it asks for a second OpenCV, JAX and a sound library, and uses none of them (see pyproject.toml).
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PIP) install -c constraints.txt -e '.[pose-runtime,dev]'
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
		$(PIP) install --no-deps '$(MEDIAPIPE)'; \
	else \
		echo "MediaPipe has no wheels for this Python: poses come from files, or pip install 'scd[dwpose]'"; \
	fi
	touch $@

run: env
	$(BIN)/scd animate examples/reference.png examples/pose.png -o out/first.png --sheet --force
	$(BIN)/scd animate examples/reference.png examples/dance.mp4 -o out/first.mp4 --compare out/first-compare.mp4 --force

demo: env
	$(BIN)/scd demo

test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS)

test-all: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) -m ''

lint: env
	$(BIN)/ruff check .
	$(BIN)/pyright

# What `make run` and the README read: three people of the procedural world, whom training never sees, and a garment
examples: env
	$(BIN)/scd world examples/reference.png --seed 43 --num 1 --views 1 --size 384 --force
	$(BIN)/scd world examples/pose.png --seed 45 --num 1 --views 1 --size 384 --force
	$(BIN)/scd world examples/dance.mp4 --seed 52 --clip dance --frames 45 --fps 15 --size 256 --force
	$(BIN)/scd world examples/garment.png --seed 46 --garment upper --size 384 --force

# The moving picture of the README, painted by the weights of the day
readme-gif: env
	$(BIN)/scd animate examples/reference.png examples/dance.mp4 -o out/first.mp4 --compare docs/images/dance.gif --force

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
