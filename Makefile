# The few commands of this project. `make` alone lists them.

# host:port of the service, the folder of its SQLite file, and who runs it: spin, or this project's own
# host where spin is not installed. Any Spin variable goes in as SPIN_VARIABLE_NAME.
LISTEN    ?= 127.0.0.1:3000
STATE_DIR ?= .spin
HOST      ?=
# host:port of the relay, which has the codes delivered. KAFKA_BROKERS turns on Kafka.
RELAY_LISTEN ?= 127.0.0.1:3100
# How long each target is fuzzed by `make fuzz`.
FUZZ_SECONDS ?= 30
# How many suites `make test` runs side by side. Most of their time they wait.
SIDE_BY_SIDE ?= 3
export LISTEN STATE_DIR HOST RELAY_LISTEN

# Who runs it if nobody said.
RUN_HOST   = $(or $(HOST),$(if $(shell command -v spin 2>/dev/null),spin,embedded))

# spin.toml names the component by its place below target/.
export CARGO_TARGET_DIR := $(CURDIR)/target

COMPONENT_BUILD = cargo build --locked --package otp-component --target wasm32-wasip2 --profile component
# All that is native is built with the same packages named, and what is to be built of them said by target. Cargo chooses
# the features of a shared crate by the packages: with some of them left out, `make run` would build sqlx, tokio and
# what depends on them in one way, and `make test` in another.
NATIVE = --locked --release --workspace --exclude otp-component

.PHONY: help run build component host relay native built env test soak fuzz servers bench bench-compare fmt lint clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-14s %s\n", $$1, $$2 }'

run: build ## Build what is missing, and serve on LISTEN with a relay on RELAY_LISTEN
	@HOST=$(RUN_HOST) scripts/run.sh

build: component ## Build all that `make run` needs
	@$(MAKE) --no-print-directory $(if $(filter spin,$(RUN_HOST)),relay,host)

component: ## Build the WebAssembly component
	@scripts/wasm-target.sh
	@$(COMPONENT_BUILD)

host:
	@scripts/note.sh '$(CURDIR)/target/release/spin-otp-host' 'building the embedded host; the first time takes some ten minutes on two cores'
	@cargo build $(NATIVE) --bin spin-otp-host --bin relay

# Where spin runs the component, the relay is all that is native.
relay:
	@cargo build $(NATIVE) --bin relay

# All programs, and all tests.
native:
	@scripts/note.sh '$(CURDIR)/target/release/spin-otp-host' 'building all programs and tests; the first time takes some ten minutes on two cores'
	@cargo build $(NATIVE) --lib --bins --tests

env: ## Write .env with fresh keys, for docker compose
	@scripts/env.sh

# The suites: what runs on which store, and why, stands in docs/checks.md. STORE=postgres puts a service's state into a
# Postgres of its own, LEDGER=postgres a relay's ledger; CACHE=redis gives a service a Redis of its own.
SQLITE         = STORE= CACHE=
SQLITE_REDIS   = STORE= CACHE=redis
POSTGRES       = STORE=postgres CACHE=
POSTGRES_REDIS = STORE=postgres CACHE=redis

# What of the service suite no store of the service can break, or brings the servers that it is about.
ANY_STORE = api_keys:: bad_input:: cache:: cache_failures:: configuration:: contract:: cors:: headers:: openapi:: \
  postgres_server:: profiles:: readme:: sqlite_file:: uniform::the_same_measurement

# The longest first, so that none is left to run alone in the end.
SUITES = relay service-postgres service-sqlite graceful failure-postgres failure-sqlite model-postgres model-redis model-sqlite \
  observability pumping embedded_host costs unit docs deployment run
ifeq ($(HOST),spin)
SUITES := $(filter-out unit docs embedded_host costs deployment run graceful,$(SUITES))
endif
TEST  = cargo test $(NATIVE)
SUITE = @scripts/suite.sh $(@:suite-%=%)

# All that the suites need: what is compiled, and the servers that are fetched.
built:
	@$(MAKE) --no-print-directory --jobs 3 component native servers

test: built ## Set up, build, and run every test (HOST=spin: against spin)
	@rm -rf target/suites
	@$(MAKE) --no-print-directory --keep-going --jobs $(SIDE_BY_SIDE) $(SUITES:%=suite-%); \
	  ended=$$?; scripts/suite.sh; exit $$ended

suite-unit:
	$(SUITE) $(TEST) --lib --bins --test number_table

suite-docs:
	$(SUITE) $(TEST) --doc

suite-embedded_host suite-costs suite-deployment suite-run suite-observability:
	$(SUITE) $(TEST) --test $(@:suite-%=%)

suite-graceful:
	$(SUITE) $(TEST) --test graceful -- --nocapture

suite-service-sqlite:
	$(SUITE) env $(SQLITE) $(TEST) --test service

suite-service-postgres:
	$(SUITE) env $(POSTGRES_REDIS) $(TEST) --test service -- $(ANY_STORE:%=--skip %)

suite-relay:
	$(SUITE) env LEDGER= $(TEST) --test relay

suite-pumping:
	$(SUITE) env STORE= $(TEST) --test pumping -- --nocapture

suite-model-sqlite:
	$(SUITE) env $(SQLITE) $(TEST) --test model -- --nocapture

suite-model-redis:
	$(SUITE) env $(SQLITE_REDIS) $(TEST) --test model -- --nocapture

suite-model-postgres:
	$(SUITE) env $(POSTGRES_REDIS) $(TEST) --test model -- --nocapture

suite-failure-sqlite:
	$(SUITE) env STORE= LEDGER= $(TEST) --test failure -- --nocapture

suite-failure-postgres:
	$(SUITE) env STORE=postgres LEDGER=postgres $(TEST) --test failure -- --nocapture --skip several_relays::

soak: built ## The long checks: every suite on every store, 10,000 model steps, twenty failure seeds, fuzzing
	$(SQLITE_REDIS) $(TEST) --test service
	$(POSTGRES) $(TEST) --test service
	$(POSTGRES_REDIS) $(TEST) --test service
	LEDGER=postgres $(TEST) --test relay
	STORE=postgres $(TEST) --test pumping -- --nocapture
	$(SQLITE) STEPS=10000 $(TEST) --test model -- --nocapture
	$(SQLITE_REDIS) STEPS=10000 $(TEST) --test model -- --nocapture
	$(POSTGRES) STEPS=10000 $(TEST) --test model -- --nocapture
	$(POSTGRES_REDIS) STEPS=10000 $(TEST) --test model -- --nocapture
	STORE= LEDGER= SEEDS=20 $(TEST) --test failure -- --nocapture
	STORE=postgres LEDGER=postgres SEEDS=20 $(TEST) --test failure -- --nocapture
	scripts/fuzz.sh 600

fuzz: ## Fuzz each reader of foreign input for FUZZ_SECONDS (default 30)
	scripts/fuzz.sh $(FUZZ_SECONDS)

servers:
	@scripts/test-servers.sh

bench: component servers ## Measure the calls: STORES RELAYS CONNECTIONS NUMBERS LIMITS ROUNDS SECONDS PEERS OTPGATEWAY
	@cargo build $(NATIVE) --bins
	@scripts/bench-tools.sh
	@[ "$(PEERS)" != spring ] || scripts/bench-spring.sh
	@TMPDIR=$${TMPDIR:-/tmp} target/release/spin-otp-bench

bench-compare: servers ## Measure two commits in turns: make bench-compare A=main B=HEAD, with the variables of bench
	@cargo build $(NATIVE) --bin spin-otp-bench
	@scripts/bench-tools.sh
	@scripts/bench-compare.sh "$(A)" "$(B)"

fmt: ## Format the code
	cargo fmt --all

lint: ## Formatting and clippy
	@scripts/wasm-target.sh
	cargo fmt --all --check
	cargo clippy $(NATIVE) --all-targets -- -D warnings
	cargo clippy --locked --package otp-component --target wasm32-wasip2 --profile component -- -D warnings

clean: ## Remove what was built and the local database
	cargo clean
	rm -rf .spin
