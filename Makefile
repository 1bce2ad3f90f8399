# The three things that people do here: see it work, test it, and tidy up before a pull request.
PYTHON ?= python3
BIN = .venv/bin
PLUGINS = plugins/tlx-efficientnet-lite plugins/tlx-open-images plugins/tlx-ssd-mobilenet

.PHONY: install demo test endurance lint format

install: .venv/installed

# Of what setuptools says of every editable installation nothing is to be done.
.venv/installed: pyproject.toml $(PLUGINS:%=%/pyproject.toml)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet --editable '.[dev]' $(PLUGINS:%=--editable %)
	touch $@

demo: install
	$(BIN)/tlx search experiments/quickstart.gin

test: install
	$(BIN)/python -m pytest -n 2

# The long form of the tests that kill searches and starve workers: three quarters of an hour or so; it writes docs/endurance.md.
endurance: install
	TLX_ENDURANCE=1 $(BIN)/python -m pytest -s tests/endurance

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
