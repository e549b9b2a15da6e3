# The few commands of this project. `make` alone lists them.

# host:port of the service, the folder of its SQLite file, and who runs it: spin, or this project's own
# host where spin is not installed. Any Spin variable goes in as SPIN_VARIABLE_NAME.
LISTEN    ?= 127.0.0.1:3000
STATE_DIR ?= .spin
HOST      ?= $(if $(shell command -v spin 2>/dev/null),spin,embedded)
export LISTEN STATE_DIR HOST

# spin.toml names the component by its place below target/.
export CARGO_TARGET_DIR := $(CURDIR)/target

COMPONENT_BUILD = cargo build --locked --package otp-component --target wasm32-wasip2 --profile component
# One build of everything native, in one profile: what the tests use is not built a second time.
NATIVE_BUILD = cargo build --locked --release --package spin-otp-host

.PHONY: help run build component host test bench fmt lint clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-10s %s\n", $$1, $$2 }'

run: build ## Build what is missing and serve on LISTEN
	@scripts/run.sh

build: component ## Build all that `make run` needs
ifneq ($(HOST),spin)
	@$(MAKE) --no-print-directory host
endif

component: ## Build the WebAssembly component
	@scripts/wasm-target.sh
	@$(COMPONENT_BUILD)

host:
	@scripts/note.sh '$(CURDIR)/target/release/spin-otp-host' 'building the embedded host; the first time takes some ten minutes on two cores'
	@$(NATIVE_BUILD)

test: component host ## Set up, build, and run every test (HOST=spin: the suites against spin)
	cargo test --locked --release --workspace --exclude otp-component

bench: component host ## Measure the calls of a service that is started for it
	cargo run --locked --release --package spin-otp-bench

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
