# Nightjar: `make help` lists what there is. Every target is one line; CI runs just these.
SHELL := /bin/sh
PYTHON ?= python3
SETUP = @$(PYTHON) tools/setup.py
VALUES := SOURCE AS_OF CUTS LAKE PERSON SURFACE ITEM TABLE EXPERIMENT PARAMS METRICS MASTER TO EVENTS TESTS FILE CANDIDATE DECISION REASON EFFECT ARMS WORLD NIGHTS HOURS

# Values reach Python through the environment as they were typed: neither make nor a shell expands them.
$(foreach name,$(VALUES),$(eval override $(name) := $$(value $(name))))
export $(VALUES)
.DEFAULT_GOAL := help
.PHONY: run refresh diagnose ui show why docs staleness ghosts backtest decay lineage rollback shadow plan assign bench faults neural test check help clean

run: ## a whole night, to a published release [SOURCE=name or folder] [AS_OF=YYYY-MM-DD] [LAKE=folder] [PARAMS=json] [MASTER=spark://…]
	$(SETUP) --with java -- -m tools.night
refresh: ## what changed since the night, in a release of its own [AS_OF=YYYY-MM-DDTHH:MM] [SOURCE=…] [LAKE=…] [PARAMS=json] [MASTER=…]
	$(SETUP) --with java -- -m tools.refresh
diagnose: ## data, model or system: the five gates over what was served [AS_OF=YYYY-MM-DD] [SOURCE=…] [METRICS=file] [LAKE=folder] [PARAMS=json] [MASTER=…]
	$(SETUP) --with java -- -m tools.diagnose
ui: ## Airflow's web UI on this machine, one trigger away from a night [LAKE=folder]
	$(SETUP) --with java -- -m tools.ui
show: ## what a person did lately and what is recommended, and why: PERSON=id [SURFACE=homepage] [LAKE=folder]
	$(SETUP) -- -m tools.ask show PERSON
why: ## why a person does not get an item: PERSON=id ITEM=id [LAKE=folder]
	$(SETUP) -- -m tools.ask why PERSON ITEM
docs: ## build the data docs and report pages and say where they are [LAKE=folder]
	$(SETUP) --with java -- -m tools.ask docs
staleness: ## what lists lose as tables age, and how often to refresh them [SOURCE=…] [AS_OF=YYYY-MM-DD] [LAKE=folder] [PARAMS=json] [MASTER=…]
	$(SETUP) --with java -- -m tools.ask staleness
ghosts: ## what split people cost the lists, and what finding them again brings [SOURCE=name] [AS_OF=YYYY-MM-DD] [LAKE=folder]
	$(SETUP) --with java -- -m tools.ghosts
backtest: ## what earlier nights' lists would have foreseen, beside simple methods [SOURCE=…] [CUTS=YYYY-MM-DD,…] [LAKE=folder] [PARAMS=json] [MASTER=…]
	$(SETUP) --with java -- -m tools.backtest
decay: ## night after night, what a day of refreshes loses against the night after it [SOURCE=…] [AS_OF=YYYY-MM-DD] [NIGHTS=30] [HOURS=23] [LAKE=folder] [PARAMS=json] [MASTER=…]
	$(SETUP) --with java -- -m tools.decay
lineage: ## the way back from a table to its source: TABLE=name [AS_OF=YYYY-MM-DD] [LAKE=folder]
	$(SETUP) -- -m tools.ask lineage TABLE
rollback: ## serve an earlier release [TO=release] [LAKE=folder]
	$(SETUP) -- -m tools.ask rollback
shadow: ## a candidate, built in a lake of its own, beside what serves: CANDIDATE=folder [DECISION=promote|reject REASON=…] [LAKE=folder]
	$(SETUP) -- -m tools.ask shadow CANDIDATE
plan: ## how long an experiment takes, by who visited lately [EFFECT=0.05] [ARMS=2] [LAKE=folder]
	$(SETUP) -- -m tools.ask plan
assign: ## before an experiment begins, balanced arms for who is known: EXPERIMENT=name [FILE=metrics.yaml] [LAKE=folder]
	$(SETUP) -- -m tools.ask assign EXPERIMENT
bench: ## the heavy jobs as data grow, and others beside them: time, memory, growth [PARTS=night,beside,links,persons,topk,scoring,index,refresh,als,reader,off_policy,diagnosis]
	$(SETUP) --with java -- -m tools.bench
faults: ## plant known faults in a world that is served, and tell which the diagnosis names [FILE=faults.yaml] [WORLD=days=49,every=7] [LAKE=folder] [MASTER=…]
	$(SETUP) --with java -- -m tools.faults
neural: ## install what the optional two-tower retrieval and deep ranker are trained with
	$(SETUP) --with neural
test: ## all tests, with local Spark and Airflow [TESTS=path]
	$(SETUP) --dev --with java,redis,chromium -- -m tools.ask test
check: ## lint, format, types
	$(SETUP) --dev -- -m tools.ask check
help: ## this list
	@$(PYTHON) tools/help.py
clean: ## remove .venv, caches and Airflow's metadata; the lake stays
	@rm -rf .venv var/airflow .pytest_cache .mypy_cache .ruff_cache .hypothesis
