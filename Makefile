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
export LISTEN STATE_DIR HOST RELAY_LISTEN

# Who runs it if nobody said.
RUN_HOST   = $(or $(HOST),$(if $(shell command -v spin 2>/dev/null),spin,embedded))

# spin.toml names the component by its place below target/.
export CARGO_TARGET_DIR := $(CURDIR)/target

COMPONENT_BUILD = cargo build --locked --package otp-component --target wasm32-wasip2 --profile component
# All that is native in one build: with some of it left out, the crates that all of it shares would have
# other features, and wasmtime would be built once for `make run` and once more for `make test`.
NATIVE_BUILD = cargo build --locked --release --workspace --exclude otp-component

.PHONY: help run build component host relay env test soak fuzz servers bench fmt lint clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-10s %s\n", $$1, $$2 }'

run: build ## Build what is missing, and serve on LISTEN with a relay on RELAY_LISTEN
	@HOST=$(RUN_HOST) scripts/run.sh

build: component ## Build all that `make run` needs
	@$(MAKE) --no-print-directory $(if $(filter spin,$(RUN_HOST)),relay,host)

component: ## Build the WebAssembly component
	@scripts/wasm-target.sh
	@$(COMPONENT_BUILD)

host:
	@scripts/note.sh '$(CURDIR)/target/release/spin-otp-host' 'building the embedded host; the first time takes some ten minutes on two cores'
	@$(NATIVE_BUILD)

# Where spin runs the component, the relay is all that is native.
relay:
	@cargo build --locked --release --package spin-otp-relay

env: ## Write .env with fresh keys, for docker compose
	@scripts/env.sh

# The suites that talk to the service run on SQLite, on SQLite with Redis and on Postgres with Redis; `soak` has the
# rest of that product. STORE=postgres puts a service's state into a Postgres of its own, LEDGER=postgres a relay's.
TEST = cargo test --locked --release --workspace --exclude otp-component

test: component host servers ## Set up, build, and run every test (HOST=spin: against spin)
	$(TEST) --lib
	$(TEST) --doc
ifneq ($(HOST),spin)
	$(TEST) --bins
	$(TEST) --test embedded_host
	$(TEST) --test deployment
	$(TEST) --test run
	$(TEST) --test graceful -- --nocapture
endif
	STORE= CACHE= $(TEST) --test service
	STORE= CACHE=redis $(TEST) --test service
	STORE=postgres CACHE=redis $(TEST) --test service
	LEDGER= $(TEST) --test relay
	$(TEST) --test observability
	STORE= $(TEST) --test pumping -- --nocapture
	STORE= CACHE= $(TEST) --test model -- --nocapture
	STORE= CACHE=redis $(TEST) --test model -- --nocapture
	STORE=postgres CACHE=redis $(TEST) --test model -- --nocapture
	STORE= LEDGER= $(TEST) --test failure -- --nocapture
	STORE=postgres LEDGER=postgres $(TEST) --test failure -- --nocapture

soak: component host servers ## The long checks: 10,000 model steps a store, twenty failure seeds, fuzzing
	LEDGER=postgres $(TEST) --test relay
	STORE=postgres CACHE= $(TEST) --test service
	STORE=postgres $(TEST) --test pumping -- --nocapture
	STORE= CACHE= STEPS=10000 $(TEST) --test model -- --nocapture
	STORE= CACHE=redis STEPS=10000 $(TEST) --test model -- --nocapture
	STORE=postgres CACHE= STEPS=10000 $(TEST) --test model -- --nocapture
	STORE=postgres CACHE=redis STEPS=10000 $(TEST) --test model -- --nocapture
	STORE= LEDGER= SEEDS=20 $(TEST) --test failure -- --nocapture
	STORE=postgres LEDGER=postgres SEEDS=20 $(TEST) --test failure -- --nocapture
	scripts/fuzz.sh 600

fuzz: ## Fuzz each reader of foreign input for FUZZ_SECONDS (default 30)
	scripts/fuzz.sh $(FUZZ_SECONDS)

servers:
	@scripts/test-servers.sh

bench: component host servers ## Measure the calls of services that are started for it
	@TMPDIR=$${TMPDIR:-/tmp} target/release/spin-otp-bench

fmt: ## Format the code
	cargo fmt --all

lint: ## Formatting and clippy
	@scripts/wasm-target.sh
	cargo fmt --all --check
	cargo clippy --locked --release --workspace --exclude otp-component --all-targets -- -D warnings
	cargo clippy --locked --package otp-component --target wasm32-wasip2 --profile component -- -D warnings

clean: ## Remove what was built and the local database
	cargo clean
	rm -rf .spin
