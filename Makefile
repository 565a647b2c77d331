# The two commands that matter are `make demo` and `make test`; the rest are their parts. ARGS goes to the command.
# `verify`-like targets only read; `fix` writes.
ARGS ?=
CARGO ?= cargo
# Where cargo puts things, wherever that is (CARGO_TARGET_DIR, workspace config …).
TARGET = $(shell $(CARGO) metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

# A target that others need takes ARGS only when it was asked for by name.
own = $(if $(filter $@,$(MAKECMDGOALS)),$(ARGS))

.PHONY: help demo test web build fix lint alerts bench bench-peers chaos roll sim fuzz FORCE

help: ## this list (ARGS: only the lines with that word)
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | grep -iF -- "$(own)"

demo: web build ## a cluster of three nodes in two regions with a running show, on this machine
	$(TARGET)/release/rushroom demo $(ARGS)

test: ## everything: lint, web, unit, build, smoke, chaos, roll, sim, browser (ARGS: the stages to run)
	.ci/stages $(ARGS)

web: router/web/dist/favicon.svg ## the web page, if its sources changed (ARGS go to vite: "--sourcemap", and build it anyway)

# What `make web` was given; another way of building is another result, whatever the sources' age.
web_args = $(if $(filter web,$(MAKECMDGOALS)),$(ARGS))

# Not index.html: `cargo build` without Node writes a placeholder of that name.
router/web/dist/favicon.svg: $(shell find router/web/src router/web/public router/web/index.html router/web/package-lock.json router/web/vite.config.ts -type f 2>/dev/null) $(if $(web_args),FORCE)
	cd router/web && npm ci --no-audit --no-fund && $(if $(web_args),npm run check && npx vite build $(web_args),npm run build)

FORCE:

build: ## the two binaries, optimised
	$(CARGO) build --release --locked -p node -p chaos $(own)

lint: ## what CI's first stage says
	.ci/stages lint $(ARGS)

fix: ## formats the code
	$(CARGO) fmt --all $(ARGS)

bench: build ## a bench: ARGS="core", "bids --clients 64 --seconds 10", "failover --kills 20"
	RUSHROOM_BIN=$(TARGET)/release/rushroom $(TARGET)/release/chaos bench $(ARGS)

bench-peers: build ## ours beside etcd and a Redis job queue (builds them into out/peers): ARGS="--rounds 3 --seconds 8"
	chaos/peers/install out/peers
	RUSHROOM_BIN=$(TARGET)/release/rushroom $(TARGET)/release/chaos bench peers --peers out/peers $(ARGS)

chaos: build ## a chaos plan: ARGS="chaos/plans/smoke.toml --out out/chaos"
	RUSHROOM_BIN=$(TARGET)/release/rushroom $(TARGET)/release/chaos run $(ARGS)

alerts: ## every alert fired once for real against a real Prometheus; needs root, prometheus, strace (ARGS: "--only slow,disk")
	$(CARGO) build --release --locked -p node --features next
	mkdir -p out && cp $(TARGET)/release/rushroom out/rushroom-next
	$(CARGO) build --release --locked -p node -p chaos
	RUSHROOM_BIN=$(TARGET)/release/rushroom RUSHROOM_NEXT_BIN=$(CURDIR)/out/rushroom-next unshare --mount .ci/netns $(TARGET)/release/chaos alerts --out out/alerts $(ARGS)

# Two builds of this tree: with the feature `next` the node knows one version more.
roll: ## a roll from this build to one with other rules and log entries, under bids (ARGS: "--seed 7")
	$(CARGO) build --release --locked -p node --features next
	mkdir -p out && cp $(TARGET)/release/rushroom out/rushroom-next
	$(CARGO) build --release --locked -p node -p chaos
	RUSHROOM_BIN=$(TARGET)/release/rushroom RUSHROOM_NEXT_BIN=$(CURDIR)/out/rushroom-next $(TARGET)/release/chaos run chaos/plans/roll.toml --out out/chaos-roll $(ARGS)

SEEDS ?= 200

sim: ## the shards' real code in a simulated world: SEEDS=5000, ARGS="--from 1000 --twice", ARGS="--seed 17 --out out/sim", ARGS="--plant all"
	$(CARGO) build --release --locked -p chaos --features sim
	$(TARGET)/release/chaos sim $(if $(findstring --seed ,$(ARGS) ),,--seeds $(SEEDS)) $(ARGS)

# Runs until it finds something or is told to stop. What it runs (raft-store/auction/fuzz/drive.rs) is a plain test, too, and the
# lint stage compiles the target on the pinned compiler. Once: `rustup toolchain install nightly && cargo install cargo-fuzz`.
fuzz: ## the auction core's fuzz target; needs cargo-fuzz and a nightly compiler (ARGS go to libFuzzer: "-max_total_time=60")
	cd raft-store/auction && $(CARGO) +nightly fuzz run apply -- $(ARGS)
