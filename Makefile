# The commands of this repository. Each is one line here; what they do is in scripts/.
.PHONY: run test bench web fmt codegen help

help: ## List the commands
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

run: ## Build everything, start a server, and show one session from prompt to pull request (ONCE=1: then stop)
	@scripts/run

test: ## Run every check and every test
	@scripts/test

bench: web ## Print the numbers of SPECIFICATION.md (NAME=prefix: some of them)
	cargo build --release --locked --package greenroom
	GREENROOM_BIN=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release/greenroom cargo run --release --locked --package greenroom-benches -- $(NAME)

web: ## Build the web app, which the next build of the program embeds
	npm ci --ignore-scripts --no-audit --no-fund
	npm run build

codegen: ## Write the files that are generated from code
	cargo xtask codegen
	npm run codegen

fmt: ## Format the Rust code
	cargo fmt --all
