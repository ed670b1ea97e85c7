# The commands of the README. Each installs what it needs first and says so.

SHELL := /bin/bash
INSTALL := tests/testbed/install

.DEFAULT_GOAL := help
.PHONY: help demo test soak bench bench-stages lint fmt testbed cargo

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: cargo ## the whole way; SOURCE=postgres|mysql|mariadb, KAFKA=1 adds a real Apache Kafka
	@$(INSTALL) build $(or $(SOURCE),postgres) $(if $(filter-out 0,$(KAFKA)),kafka)
	cargo build --release -p rollcall -p rollcall-demo --bin rollcall --bin rollcall-demo
	@SOURCE=$(SOURCE) KAFKA=$(filter-out 0,$(KAFKA)) $${CARGO_TARGET_DIR:-target}/release/rollcall-demo

test: cargo ## every test, against real servers
	@$(INSTALL) build postgres postgres18 kafka mysql mariadb mariadb11
	cargo test --workspace --doc --no-fail-fast
	cargo test --workspace --lib --bins --tests --no-fail-fast

soak: cargo ## random histories, simulated and with real servers; SEEDS=<how many>, or ROLLCALL_SEED=<which>
	@$(INSTALL) build postgres mysql mariadb
	ROLLCALL_SEEDS=$(or $(SEEDS),3000) cargo test --workspace --test chaos -- --nocapture whatever_fails
	ROLLCALL_SEEDS=$(or $(SEEDS),3000) cargo test --workspace --test e2e -- --nocapture end_in_the_same_directory

bench: cargo ## the figures; ONLY=<prefix> for one group, HUGE=1 for the 10 GB transaction
	@$(INSTALL) build postgres mysql mariadb kafka
	cargo build --release -p rollcall -p rollcall-bench
	@$${CARGO_TARGET_DIR:-target}/release/rollcall-bench $(if $(ONLY),--only $(ONLY)) $(if $(filter-out 0,$(HUGE)),--huge) $(if $(filter-out 0,$(QUICK)),--quick)

bench-stages: cargo ## what each stage of the way costs alone: decode, map, resolve, store, deliver
	@$(INSTALL) build
	cargo bench -p rollcall-postgres --bench decode
	cargo bench -p rollcall-core --bench map --bench resolve
	cargo bench -p rollcall-store --bench commit
	cargo bench -p rollcall --bench deliver

lint: cargo ## formatting and clippy, warnings are errors
	@$(INSTALL) build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: cargo ## formats the sources
	cargo fmt --all

testbed: ## installs all servers and tools that tests, demo and benches use
	@$(INSTALL) build postgres postgres18 kafka mysql mariadb mariadb11
	@echo "testbed: everything is in place"

cargo:
	@command -v cargo >/dev/null || { \
		echo "Rust is missing: install it with rustup (package 'rustup' of Debian 13 and Ubuntu 24.04, or the Rust project's installer), then run this again." >&2; \
		exit 1; }
