# Every target sets up what it needs; a second run does not install again.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SITE := _build/html
PORT ?= 8000
# One thread per process: with two busy processes, spinning workers cost far more than they bring.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
# Compiled files are kept, whatever the caller's shell says: the hundreds of processes that tests and notebooks
# start would each compile the library again, and pytest every test.
unexport PYTHONDONTWRITEBYTECODE
# Tests or notebooks at once: one for each processor; beyond eight the memory of a laptop would not do.
JOBS ?= $(shell $(PYTHON) -c "import os; print(min(8, os.cpu_count()))")
# Named at each call: pip would split a variable at a space, which the folder's path may have.
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
# Two makes at once take turns where they would write the same files.
ALONE = $(PYTHON) tools/alone.py _build/$(1).lock --
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup book serve test test-fast test-hosted test-live lint zip slides pdf linkcheck notebooks results bench clean distclean

help: ## Print the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; call: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV) (once; a few minutes, about 2 GB, or 6 GB with PyTorch for GPUs)"
	$(call ALONE,environment) sh -c 'test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)'
	$(call ALONE,environment) $(INSTALL) "$$(grep "^torch==" constraints.txt)"
	$(call ALONE,environment) $(INSTALL) --editable ".[book,test]"
	@touch $@

setup: $(STAMP) ## Create .venv and install everything

# What a page can depend on; folders too, so that a file that was removed counts. Pages gather from one
# another (tested equations, mistakes, counts): any change builds all of them, no change none.
# The file that stands for the book is written by Sphinx even after a warning; make deletes it then.
BOOK := $(SITE)/.buildinfo
.DELETE_ON_ERROR:
BOOK_INPUTS := _config.yml _toc.yml $(shell find book/ course_lib/ tests/ tools/ results/ assignments/ -mindepth 1 \
  -not -path '*__pycache__*' -not -path '*/solution*' -not -path '*/.*')

$(BOOK): $(STAMP) $(BOOK_INPUTS)
	$(call ALONE,book) $(BIN)/python tools/notebooks.py execute --jobs $(JOBS)
	$(call ALONE,book) $(BIN)/jupyter-book build . --all -W -n --keep-going
	@touch $@

book: $(BOOK) ## Execute the notebooks and build the site; nothing is done where nothing has changed
	@echo "The book: $(CURDIR)/$(SITE)/index.html"

serve: book ## Serve the built book on http://localhost:8000
	$(BIN)/python -m http.server --directory $(SITE) $(PORT)

lint: $(STAMP) ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Neighbours share fixtures: each process gets a stretch of the tests, and takes from others when it is done.
PYTEST := $(BIN)/python -m pytest -q --numprocesses $(JOBS) --dist worksteal
test-fast: lint ## Lint and all tests but the slow ones (notebooks, pages, mutants, sandbox, processes, hosted, live)
	$(PYTEST) -m "not slow and not browser and not mutants and not isolation and not hosted and not live"

# The book's notebooks are compared as they were executed for it; tests/grading/test_masters.py executes the
# assignments' masters.
# Without bars: nbval reads a cell's messages when the cell is done, and above about 2000 some are lost.
NBVAL := TQDM_DISABLE=1 $(BIN)/python -m pytest -q --numprocesses $(JOBS) --dist loadfile --nbval-lax --nbval-cell-timeout=600
# All in one go, not after test-fast: to collect the tests takes each process a quarter of a minute.
test: lint book ## All tests: notebooks executed and compared, pages opened, hostile submissions graded
	$(PYTEST) -rs -m "not hosted and not live"
	JUPYTER_PATH="$(CURDIR)/tools/jupyter" $(NBVAL) --nbval-kernel-name executed book

test-hosted: $(STAMP) ## Run notebooks as on Colab: file alone, old widgets, library from the first cell (ONLY=latent-space)
	$(BIN)/python -m pytest -q -rs -m hosted $(if $(ONLY),-k "$(ONLY)") tests/book/test_hosted.py

test-live: $(STAMP) ## Move the elements of a notebook in JupyterLab, with today's and with the hosted widgets
	$(BIN)/python -m pytest -q -rs -m live tests/book/test_live_notebooks.py

zip: book ## Build the site and one file to download with all of it
	@echo "The book in one file: $(CURDIR)/$(SITE)/book.zip"

slides: book ## Build a deck of slides for each chapter from its pages, for a folder without a network
	$(call ALONE,environment) $(INSTALL) --editable ".[slides]"  # brings reveal.js
	$(BIN)/python tools/slides.py

pdf: $(STAMP) ## Build one PDF of the whole book (needs a TeX installation)
	@command -v latexmk >/dev/null && command -v xelatex >/dev/null || \
	  { echo "No TeX installation found (latexmk and xelatex are needed)."; \
	    echo "Debian: apt-get install latexmk texlive-xetex texlive-latex-extra texlive-fonts-recommended texlive-fonts-extra fonts-freefont-otf libcairo2"; exit 1; }
	$(call ALONE,environment) $(INSTALL) --editable ".[pdf]"  # turns drawings into what LaTeX reads
	$(call ALONE,book) $(BIN)/python tools/notebooks.py execute --jobs $(JOBS)
	$(call ALONE,book) $(BIN)/jupyter-book build . --builder pdflatex
	@! grep -a "undefined on input line" _build/latex/deep-generative-models.log || \
	  { echo "These links of the PDF lead nowhere."; exit 1; }
	@echo "The PDF: $(CURDIR)/_build/latex/deep-generative-models.pdf"

linkcheck: $(STAMP) ## Ask every address that the book links to (needs a network)
	$(call ALONE,book) $(BIN)/python tools/notebooks.py execute --jobs $(JOBS)
	$(call ALONE,book) $(BIN)/jupyter-book build . --builder linkcheck --keep-going

notebooks: $(STAMP) ## Execute the notebooks and store the outputs that are compared
	$(BIN)/python tools/notebooks.py refresh

results: $(STAMP) ## Repeat every run and study of which results/ holds a record (hours; a GPU is used if there is one)
	$(BIN)/course-lib train --recorded

# Peers stay out of .venv, and come without dependencies: they are measured on the same torch.
PEERS := _build/peers
$(PEERS): $(STAMP) Makefile
	$(call ALONE,peers) $(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(PEERS) \
	  zuko==1.6.0 nflows==0.14 UMNN==1.71 normflows==1.7.3 \
	  smalldiffusion==0.5.0 accelerate==1.15.0 einops==0.8.2 azula==0.11.1 diffusers==0.42.1 \
	  huggingface_hub==2.4.0 httpx2==2.16.2 httpcore2==2.16.2 truststore==0.10.5 \
	  flow-matching==1.0.10 torchcfm==1.0.7 torchdiffeq==0.2.5 POT==0.9.7.post1 \
	  importlib_metadata==10.2.0 zipp==4.1.2 regex==2026.11.19
	@touch $(PEERS)

bench: $(STAMP) $(PEERS) ## Measure speed against peers and plain PyTorch, growth, grading and the book
	PYTHONPATH=.:$(PEERS) $(BIN)/python -m benchmarks.flows
	PYTHONPATH=.:$(PEERS) $(BIN)/python -m benchmarks.diffusion
	PYTHONPATH=.:$(PEERS) $(BIN)/python -m benchmarks.flow_matching
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.sampling --sizes 28 --naive-seconds 0
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.grading --submissions 4 --repeats 1
	$(BIN)/python -m benchmarks.book

clean: ## Remove what was built
	rm -rf _build

distclean: clean ## Remove the environment too
	rm -rf $(VENV)
