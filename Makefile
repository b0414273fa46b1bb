# Fairway: every task of developers and of CI. "make" alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:

BIN := bin
# What the dev cluster has built: Kubernetes, etcd and stock Envoy, which tests run as well.
DEVCLUSTER := hack/devcluster/devcluster
DEVCLUSTER_HOME := $(or $(FAIRWAY_DEVCLUSTER_HOME),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fairway/devcluster)
export FAIRWAY_KUBE_BIN ?= $(DEVCLUSTER_HOME)/bin
export FAIRWAY_ENVOY ?= $(DEVCLUSTER_HOME)/bin/envoy
# kubectl for deploying to whatever KUBECONFIG names; the dev cluster's own binary where the machine has none.
KUBECTL ?= $(or $(shell command -v kubectl),$(DEVCLUSTER_HOME)/bin/kubectl)
# Flags for go test, as in: make test-unit TESTFLAGS=-race
TESTFLAGS ?=

# Binaries know their commit where there is one. Git refuses to tell that of a clone that another user owns, as under sudo,
# and go build would fail over it, unless git is told to.
GO_BUILD_FLAGS := -buildvcs=auto
build build-cli trial-releases: export GIT_CONFIG_COUNT := 1
build build-cli trial-releases: export GIT_CONFIG_KEY_0 := safe.directory
build build-cli trial-releases: export GIT_CONFIG_VALUE_0 := *
# Programs of root, nft among them, that a plain user's PATH on Debian lacks.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# Before a command for a module that needs a later Go than the mesh: the go command fetches the one that its go.mod names.
LATER_GO := GOTOOLCHAIN=auto

stage = @printf '\n\033[1m==> %s\033[0m\n' '$(1)'

# One set of build flags for binaries, images and tests, and the same versions in all modules (hack/align-modules.sh): so
# Go's cache compiles what they share once, and a first start on a bare machine takes minutes less. CGO_ENABLED=1 with
# TESTFLAGS=-race. Without gRPC's pages of traces nothing in the binaries uses templates, which may call any method by its
# name: the linker leaves out what nobody calls, a fifth of the whole.
GO_TAGS := grpcnotrace
export CGO_ENABLED ?= 0
export GOFLAGS := $(filter-out -trimpath -tags=%,$(GOFLAGS)) -trimpath -tags=$(GO_TAGS)

##@ General

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*##"; printf "Usage: make \033[36m<target>\033[0m\n"} \
		/^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
		/^[a-zA-Z0-9_-]+:.*?##/ {printf "  \033[36m%-22s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Build

.PHONY: build
build: ## Build the binaries into bin/.
	go build $(GO_BUILD_FLAGS) -o $(BIN)/fairway .
	go build $(GO_BUILD_FLAGS) -o $(BIN)/fairway-cni ./internal/agent/cni/fairway-cni

.PHONY: build-cli
build-cli: ## Compile the user's commands for the other systems that a release has them for. Takes minutes at first.
	for p in darwin/arm64 windows/amd64; do GOOS=$${p%/*} GOARCH=$${p#*/} go build $(GO_BUILD_FLAGS) -o /dev/null . ; done

.PHONY: install-cli
install-cli: build ## Install the user's commands as "fairway" and "kubectl fairway" into GOBIN, with completion for kubectl.
	@dir=$$(go env GOBIN); dir=$${dir:-$$(go env GOPATH)/bin}; install -Dm755 $(BIN)/fairway "$$dir/fairway"; \
		ln -sf fairway "$$dir/kubectl-fairway"; install -m755 hack/kubectl_complete-fairway "$$dir/kubectl_complete-fairway"; \
		echo "installed into $$dir"

##@ Generated code

CONTROLLER_GEN := $(BIN)/controller-gen
GOLANGCI_LINT := $(BIN)/golangci-lint
GOTESTSUM := $(BIN)/gotestsum
CRD_REF_DOCS := $(BIN)/crd-ref-docs

# Tools are modules of their own under hack/tools, so that what they need never becomes what the product needs.
$(CONTROLLER_GEN): hack/tools/go.mod hack/tools/go.sum
	@mkdir -p $(BIN)
	go -C hack/tools build -o $(abspath $@) sigs.k8s.io/controller-tools/cmd/controller-gen

$(CRD_REF_DOCS): hack/tools/reference/go.mod hack/tools/reference/go.sum
	@mkdir -p $(BIN)
	go -C hack/tools/reference build -o $(abspath $@) github.com/elastic/crd-ref-docs

$(GOTESTSUM): hack/tools/go.mod hack/tools/go.sum
	@mkdir -p $(BIN)
	go -C hack/tools build -o $(abspath $@) gotest.tools/gotestsum

$(GOLANGCI_LINT): hack/tools/lint/go.mod hack/tools/lint/go.sum
	@mkdir -p $(BIN)
	@echo "building golangci-lint (once, about two minutes on two cores)"
	go -C hack/tools/lint build -o $(abspath $@) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: generate
generate: $(CONTROLLER_GEN) $(CRD_REF_DOCS) ## Generate deep copies, CRDs, permissions and the API's reference from the Go sources, and the OLM bundle from config/.
	$(CONTROLLER_GEN) object:headerFile=hack/boilerplate.go.txt paths=./api/...
	$(CONTROLLER_GEN) crd:maxDescLen=600 paths=./api/... output:crd:dir=config/crd/bases
	$(CONTROLLER_GEN) rbac:roleName=fairway-operator paths=./controllers/... paths=./api/... output:rbac:dir=config/rbac
	hack/api-reference.sh docs/reference/api.md
	go test ./internal/conditions -run '^TestReference$$' -args -update
	go test ./internal/cli -run '^TestReference$$' -args -update
	@$(MAKE) bundle

.PHONY: align-modules
align-modules: ## Give all modules that are built together the same versions of what they share.
	hack/align-modules.sh

.PHONY: bundle
bundle: ## Generate the OLM bundle under bundle/ from config/.
	go -C hack/packages run ./cmd/bundle -root ../..

.PHONY: chart
chart: ## Generate the Helm chart from config/ into bin/chart/fairway, for helm install.
	go -C hack/packages run ./cmd/chart -root ../.. -out $(abspath $(BIN))/chart/fairway

.PHONY: verify-generated
verify-generated: ## Fail if generated files are not current.
	@hack/verify-generated.sh

# Tests of the dev cluster itself: those that need it up, and one that takes it up and down.
CLUSTER_TESTS := TestSmoke|TestCertManager
LIFECYCLE_TEST := TestUpAndDown
# The modules beside the product's.
OTHER_MODULES := hack/packages hack/devcluster test/olm

##@ Release

VERSION ?=
REGISTRY ?=
ENVOY ?=
CATALOG ?=
DIST ?= dist
ALLOW_DIRTY ?=
PLATFORMS ?=
.PHONY: release
release: export GIT_CONFIG_COUNT := 1
release: export GIT_CONFIG_KEY_0 := safe.directory
release: export GIT_CONFIG_VALUE_0 := *
release: ## Write all that a release publishes into dist/ (VERSION=v0.1.0; REGISTRY= has manifests name images there, by digest; ENVOY= and CATALOG= as in docs/install.md).
	go -C hack/packages run ./cmd/release -root $(or $(TREE),$(CURDIR)) -out $(abspath $(DIST)) -version '$(VERSION)' -registry '$(REGISTRY)' \
		-envoy '$(ENVOY)' -catalog '$(if $(CATALOG),$(abspath $(CATALOG)))' \
		$(if $(ALLOW_DIRTY),-allow-dirty) $(if $(PLATFORMS),-platforms $(PLATFORMS))

.PHONY: test-release
test-release: ## Make the release twice, and compare: the same tree gives the same bytes. Takes minutes.
	rm -rf $(BIN)/release
	@for n in 1 2; do $(MAKE) release VERSION=$$(sed -n 's/.*newTag: //p' config/default/kustomization.yaml) DIST=$(BIN)/release/$$n \
		REGISTRY=registry.example/fairway ALLOW_DIRTY=1; done
	cmp $(BIN)/release/1/SHA256SUMS $(BIN)/release/2/SHA256SUMS
	cd $(BIN)/release/1 && sha256sum --quiet --check SHA256SUMS

##@ Documentation

.PHONY: docs
docs: ## Make a site of docs/ in bin/site, and fail on broken links. Takes its tools from PyPI, once.
	hack/docs/build.sh

.PHONY: serve-docs
serve-docs: ## Make the site and serve it on the loopback address (PORT=8000).
	hack/docs/build.sh --serve

##@ Lint

# Developers' commands print, start processes and end soon: what only matters in a server is not asked of them.
HACK_LENIENT := bodyclose,contextcheck,errcheck,errchkjson,gosec,noctx

.PHONY: lint
lint: verify-generated $(GOLANGCI_LINT) ## Check generated files, formatting, import directions and the usual mistakes.
	$(call stage,golangci-lint)
	$(GOLANGCI_LINT) run ./...
	@for m in $(OTHER_MODULES) hack/certmanager hack/benchplot test/canaries test/ratelimit; do echo "module $$m"; \
		(cd $$m && $(abspath $(GOLANGCI_LINT)) run -c $(CURDIR)/.golangci.yml --disable $(HACK_LENIENT) ./...); done
	@# The linter is built with the mesh's Go, and reads no module that needs a later one.
	@echo "module test/conformance"; $(CONFORMANCE) go vet ./...
	@hack/lint-scripts.sh

.PHONY: lint-fix
lint-fix: $(GOLANGCI_LINT) ## Repair what the linter can repair by itself.
	$(GOLANGCI_LINT) run --fix ./...

##@ Test

# go test hides what a package prints unless it fails, and with it which tests were skipped and why. The first form prints a
# line for each package, the second, for packages that take long, one for each test.
WITH_SUMMARY := $(abspath $(GOTESTSUM)) --format-icons text --post-run-command $(CURDIR)/hack/no-skips.sh
# Without vet, which "make lint" runs: on a cold machine it reads every dependency once more.
GOTEST := $(WITH_SUMMARY) --format pkgname --format-hide-empty-pkg -- -vet=off
GOTEST_LONG := $(WITH_SUMMARY) --format testname -- -vet=off
# The conformance suite skips by itself what a profile does not ask for.
GOTEST_SUITE := $(abspath $(GOTESTSUM)) --format-icons text --format testname --hide-summary skipped --

# Packages whose tests need an API server or SPIRE, as their imports tell, and so more than Go and an Envoy.
# Of the module that makes packages: the chart's, through Helm, and the bundle's, into a real API server.
PACKAGES_INTEGRATION := TestInstall.*
INTEGRATION_DIRS = $(patsubst %/,%,$(sort $(dir $(shell grep -rlE --include="*_test.go" "/(test/apiserver|spiretest)\"" api controllers internal test/manifests test/scale))))
INTEGRATION := $(INTEGRATION_DIRS:%=./%/...)
DATAPATH := ./test/datapath/... ./test/waypoint/...

.PHONY: test
test: ## Run all tests, fast ones first. What needs root says so where it is missing.
	@hack/timed.sh 'stock Envoy' $(DEVCLUSTER) build --envoy
	@hack/timed.sh 'unit and golden tests' $(MAKE) test-unit
	@hack/timed.sh 'binaries of Kubernetes, etcd, Envoy and SPIRE' $(MAKE) test-prerequisites
	@hack/timed.sh 'integration with a real API server and real Envoys' $(MAKE) test-parts
	@hack/timed.sh 'what Argo CD and Flux make of good and bad states' $(MAKE) test-gitops
	@hack/timed.sh 'end to end on the dev cluster' $(MAKE) test-e2e
	@hack/timed.sh 'releases on the dev cluster, each way once' $(MAKE) test-releases RELEASE_SKIPS='$(RELEASE_REPEATS)'

.PHONY: test-unit
test-unit: export GOGC := 400 # Go's compiler, which is most of this on a cold machine, takes memory for a sixth of its time
test-unit: $(GOTESTSUM) ## Run unit and golden tests.
	$(GOTEST) $(TESTFLAGS) $$(go list ./... | grep -vE '^[^/]+/[^/]+/[^/]+/($(subst $() ,|,$(INTEGRATION_DIRS) test))(/|$$)') ./test/apiserver/...
	@# What these skip depends on the machine's kernel, such as its version of cgroups, and is no fault of the set-up.
	@# Go's cache of results doesn't notice changes outside of a module, such as of config/.
	@for m in $(OTHER_MODULES); do echo "module $$m"; (cd $$m && FAIRWAY_NO_SKIP= $(GOTEST) -count=1 $(TESTFLAGS) -skip '^($(CLUSTER_TESTS)|$(LIFECYCLE_TEST)|$(PACKAGES_INTEGRATION))$$' ./...); done

.PHONY: test-prerequisites
test-prerequisites: spire ## Build what the other tests run: Kubernetes and etcd, stock Envoy, SPIRE.
	$(DEVCLUSTER) build

# Where internal/spire/spiretest looks for it: the user's cache, by version.
SPIRE_DIR = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fairway/spire/$(shell go -C test/spire list -m -f '{{.Version}}' github.com/spiffe/spire)
.PHONY: spire
spire: ## Build the server and the agent of SPIRE, for tests. They keep their entries in SQLite, which takes a C compiler.
	mkdir -p $(SPIRE_DIR)
	CGO_ENABLED=1 go -C test/spire build -o $(SPIRE_DIR)/ github.com/spiffe/spire/cmd/spire-server github.com/spiffe/spire/cmd/spire-agent

.PHONY: test-parts
test-parts: $(GOTESTSUM) ## Run test-integration and test-datapath side by side, in two thirds of the time.
	@# They mostly wait: for an API server, an Envoy, a time limit. More than three at once would make some of them late.
	$(GOTEST_LONG) -p 3 $(TESTFLAGS) $(DATAPATH) $(INTEGRATION)
	@$(MAKE) test-packages

.PHONY: test-integration
test-integration: $(GOTESTSUM) ## Run tests against a real kube-apiserver and etcd, and a real SPIRE.
	$(GOTEST_LONG) $(TESTFLAGS) $(INTEGRATION)
	@$(MAKE) test-packages

.PHONY: test-packages
test-packages: $(GOTESTSUM) ## Install, upgrade and uninstall the Helm chart and the OLM bundle with a real kube-apiserver.
	cd hack/packages && $(GOTEST_LONG) -count=1 $(TESTFLAGS) -run '^$(PACKAGES_INTEGRATION)$$' ./internal/chart ./internal/olm

# What an installation is tested with: a release of the tree for this machine, one to upgrade from, and Helm.
RELEASES := $(BIN)/releases
HELM := $(BIN)/helm
FORMER ?=
.PHONY: trial-releases
trial-releases: $(HELM) ## Make a release of the tree for tests, and one before it: of the commit FORMER, or of the same tree.
	go -C hack/packages build -o $(abspath $(BIN)/olm-install) ./cmd/olm-install
	hack/trial-releases.sh $(RELEASES) $(FORMER)

$(HELM): hack/packages/go.mod hack/packages/go.sum
	@mkdir -p $(BIN)
	go -C hack/packages build -o $(abspath $@) helm.sh/helm/v4/cmd/helm

.PHONY: test-releases
test-releases: trial-releases $(GOTESTSUM) ## Install, upgrade under load, roll back and remove releases on the dev cluster, with what a release consists of alone (root).
	@if [ "$$(id -u)" != 0 ]; then echo "skipped: tests of releases need root for the dev cluster"; exit 0; fi; \
	$(MAKE) on-devcluster RUN='$(RUN_RELEASES)'

# What test-releases leaves out; RELEASE_REPEATS has in common with the rest what takes long.
RELEASE_SKIPS ?=
RELEASE_REPEATS := TestReleaseInstalled/(manifests|Helm)|TestReleaseUpgraded/(manifests|the_lifecycle_manager)
RUN_RELEASES = FAIRWAY_E2E=1 $(GOTEST_LONG) -count=1 -timeout 30m -run "^TestRelease" -skip "$(RELEASE_SKIPS)" $(TESTFLAGS) ./test/e2e \
	-args -releases=$(abspath $(RELEASES)) -helm=$(abspath $(HELM)) -olm=$(abspath $(BIN)/olm-install) -fault-units=10000

.PHONY: test-datapath
test-datapath: $(GOTESTSUM) ## Run tests of the data path through real Envoys in network namespaces (root).
	$(GOTEST_LONG) $(TESTFLAGS) $(DATAPATH)

.PHONY: test-e2e
test-e2e: $(GOTESTSUM) ## Run end-to-end tests on the dev cluster (root).
	@if [ "$$(id -u)" != 0 ]; then echo "skipped: end-to-end tests need root for the dev cluster"; exit 0; fi; \
	$(MAKE) on-devcluster RUN='$(DEVCLUSTER) cert-manager && FAIRWAY_E2E=1 FAIRWAY_E2E_UNDEPLOY=1 \
		$(GOTEST_LONG) -count=1 -timeout 40m -parallel 5 -skip "^(TestBench$$$$|TestNetworkPolicy|TestNothingGrows$$$$|TestNothingIsCutByTheCluster$$$$|TestRelease)" $(TESTFLAGS) ./test/e2e/...'

# Argo CD needs a later Go than the mesh, which the go command fetches.
GITOPS := cd test/gitops && GOTOOLCHAIN=go1.27.3
GITOPS_STATES = $(GITOPS) FAIRWAY_E2E=1 go test -count=1 -timeout 15m -parallel 6 -v $(TESTFLAGS) . -args -kubectl=$(KUBECTL) -fairway=$(abspath $(BIN)/fairway)

.PHONY: test-gitops
test-gitops: build ## Compare what Argo CD and Flux make of good and bad states with what the mesh says, on the dev cluster (root).
	@if [ "$$(id -u)" != 0 ]; then echo "without root: the scripts alone, on no cluster"; $(GITOPS) go test $(TESTFLAGS) .; exit; fi; \
	$(MAKE) on-devcluster RUN='$(GITOPS_STATES)'

.PHONY: update-states
update-states: build ## Write docs/states anew (root).
	@$(MAKE) on-devcluster RUN='$(GITOPS_STATES) -update'

FLAGGER := $(BIN)/flagger
$(FLAGGER): test/canaries/go.mod test/canaries/go.sum
	@mkdir -p $(BIN)
	go -C test/canaries build -o $(abspath $@) github.com/fluxcd/flagger/cmd/flagger

# No part of "make test": Flagger has clients of many clouds, which take minutes to compile, and shares no versions with the mesh.
RUN_CANARIES = cd test/canaries && FAIRWAY_E2E=1 go test -count=1 -timeout 15m -v $(TESTFLAGS) . \
	-args -kubectl=$(KUBECTL) -fairway=$(abspath $(BIN)/fairway) -flagger=$(abspath $(FLAGGER))
.PHONY: test-canaries
test-canaries: build $(FLAGGER) ## Run the canaries of docs/canaries.md with Flagger on the dev cluster (root). Builds Flagger, which takes minutes at first.
	@$(MAKE) on-devcluster RUN='$(RUN_CANARIES)'

FAULT_UNITS ?= 10000
.PHONY: test-faults
test-faults: ## Keep FAULT_UNITS requests, streams and connections going on the dev cluster through each fault there is (root).
	@$(MAKE) on-devcluster RUN='$(DEVCLUSTER) cert-manager && FAIRWAY_E2E=1 \
		go test -v -count=1 -timeout 120m $(TESTFLAGS) -run "^TestNothingIsCut" ./test/e2e -args -fault-units=$(FAULT_UNITS)'

SOAK ?= 1h
.PHONY: soak
soak: ## Keep the mesh of the dev cluster busy for SOAK, and tell what has grown (root).
	@$(MAKE) on-devcluster RUN='FAIRWAY_E2E=1 go test -v -count=1 -timeout 24h $(TESTFLAGS) -run "^TestNothingGrows$$$$" ./test/e2e -args -soak=$(SOAK)'

.PHONY: test-networkpolicy
test-networkpolicy: $(GOTESTSUM) ## Run end-to-end tests on a dev cluster that enforces NetworkPolicies (root); in the end it does so no longer.
	@$(MAKE) on-devcluster RUN='status=0; ($(DEVCLUSTER) cert-manager && $(DEVCLUSTER) network-policies && \
		FAIRWAY_E2E=1 FAIRWAY_E2E_NETWORKPOLICY=1 $(GOTEST_LONG) -count=1 -timeout 20m -parallel 5 \
		-skip "^(TestBench|TestUndeploy|TestNothingGrows|TestNothingIsCutByTheCluster|TestRelease.*)$$$$" $(TESTFLAGS) ./test/e2e/...) || status=$$$$?; $(DEVCLUSTER) network-policies --off; exit $$$$status'

BENCH_ROUTES ?= 0,1000,3000
BENCH_ONE ?= 1000,3000
BENCH_CHURN ?= 50
BENCH_POLICIES ?= 0,1000
.PHONY: bench
bench: ## Measure how soon changes are in force, and what they cost, on the dev cluster; write docs/benchmarks.md with its plots (root).
	@$(MAKE) on-devcluster RUN='FAIRWAY_E2E=1 go test -v -count=1 -timeout 60m -run "^TestBench$$$$" ./test/e2e \
		-args -bench-routes=$(BENCH_ROUTES) -bench-one=$(BENCH_ONE) -bench-churn=$(BENCH_CHURN) -bench-policies=$(BENCH_POLICIES) -bench-output=$(abspath docs/benchmarks)'
	go run -C hack/benchplot . $(abspath docs/benchmarks.json) $(abspath docs/benchmarks.svg)
	@{ printf '\n## Data path\n\nNode proxies, and beside them in turn two stock Envoys with nothing but mutual TLS (floor): medians of five rounds '; \
		printf '([what it is made of](design/data-path-cost.md)).\n\n```\n'; $(BENCH_DATAPATH) | grep -E '^Benchmark.*/|MB'; printf '```\n'; } \
		>>docs/benchmarks.md

# CPU of proxies for a unit of work, and their memory.
BENCH_DATAPATH := go test -count=1 -run '^$$' -bench '^Benchmark(Cost|Memory|Waypoint)$$' -benchtime 1x ./test/datapath
.PHONY: bench-datapath
bench-datapath: ## Measure what connections cost the node proxies, beside bare Envoys (root).
	$(BENCH_DATAPATH)

SCALE ?= -scale-nodes=1000 -scale-services=20000 -scale-pods=100000 -scale-routes=5000 -scale-waypoints=500 -scale-dials=50 -scale-edits=20
SCALE_OUTPUT ?= $(BIN)/scale.json
.PHONY: scale
scale: ## Measure two operators with a large cluster in a real API server, and simulated proxies (root, 16 GiB, an hour or more).
	@mkdir -p $(dir $(SCALE_OUTPUT))
	go test -v -count=1 -timeout 180m -run '^TestScale$$' ./test/scale -args $(SCALE) -scale-output=$(abspath $(SCALE_OUTPUT))

.PHONY: test-cluster
test-cluster: $(GOTESTSUM) ## Test the dev cluster itself, and that it leaves nothing: it is down in the end (root).
	$(DEVCLUSTER) up
	$(DEVCLUSTER) images
	$(DEVCLUSTER) cert-manager
	cd hack/devcluster && $(GOTEST_LONG) -count=1 $(TESTFLAGS) -run '^($(CLUSTER_TESTS))$$' .
	$(DEVCLUSTER) down
	cd hack/devcluster && $(GOTEST_LONG) -count=1 $(TESTFLAGS) -run '^$(LIFECYCLE_TEST)$$' .

.PHONY: update-golden
update-golden: ## Write the golden files of all tests anew.
	for p in deploy engine cli agent/cni agent/capture translate/node translate/route translate/upstream translate/waypoint; do go test ./internal/$$p -args -update; done
	cd hack/packages && go test ./internal/chart -run '^TestGolden$$' -args -update

# on-devcluster starts the dev cluster, deploys the working tree there, and runs RUN with KUBECONFIG set. IMAGES are flags
# for `devcluster images`.
IMAGES ?=
.PHONY: on-devcluster
on-devcluster:
	$(DEVCLUSTER) up
	$(DEVCLUSTER) images $(IMAGES)
	@eval "$$($(DEVCLUSTER) env)"; installed=$$($(KUBECTL) get namespace $(SYSTEM) --ignore-not-found -o name); \
	$(MAKE) allow-experimental-crds gateway-api-crds deploy $${installed:+restart} mesh GATEWAY_API_CHANNEL=experimental; $(RUN)

##@ Deploy (to the cluster that KUBECONFIG names)

GATEWAY_API_CHANNEL ?= standard
# The module whose release of the Gateway API is installed.
GATEWAY_API_MODULE ?= .
SYSTEM := fairway-system

.PHONY: gateway-api-crds
gateway-api-crds: ## Install the CRDs of the Gateway API (GATEWAY_API_CHANNEL=standard or experimental).
	@dir=$$($(LATER_GO) go -C $(GATEWAY_API_MODULE) mod download -json sigs.k8s.io/gateway-api | sed -n 's/^.*"Dir": "\(.*\)".*$$/\1/p'); \
	$(KUBECTL) apply --server-side --force-conflicts -k "$$dir/config/crd/$(patsubst standard,,$(GATEWAY_API_CHANNEL))"

.PHONY: allow-experimental-crds
allow-experimental-crds: ## Let the experimental CRDs of the Gateway API replace standard ones, until gateway-api-crds runs.
	$(KUBECTL) delete validatingadmissionpolicybinding safe-upgrades.gateway.networking.k8s.io --ignore-not-found

.PHONY: deploy
deploy: ## Install CRDs, permissions and the operator, and wait for it.
	$(KUBECTL) apply --server-side --force-conflicts -k config/default
	@minor=$$($(KUBECTL) get --raw /version | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p'); \
	if [ "$${minor:-0}" -lt 36 ]; then $(KUBECTL) apply --server-side --force-conflicts -k config/agents-before-1.36; \
	else $(KUBECTL) delete -k config/agents-before-1.36 --ignore-not-found; fi
	$(KUBECTL) -n $(SYSTEM) rollout status deployment/fairway-operator --timeout=180s

.PHONY: restart
restart: ## Restart what may run an older image of the same name, and wait for it.
	@for w in $$($(KUBECTL) get deployments,daemonsets -A -l app.kubernetes.io/name=fairway \
		-o jsonpath='{range .items[*]}{.metadata.namespace}/{.kind}/{.metadata.name} {end}'); do \
		$(KUBECTL) -n "$${w%%/*}" rollout restart "$${w#*/}" || \
		! $(KUBECTL) -n "$${w%%/*}" get "$${w#*/}" >/dev/null 2>&1; done # a waypoint may go with its namespace
	@for w in $$($(KUBECTL) get deployments,daemonsets -n $(SYSTEM) -l app.kubernetes.io/name=fairway -o name); do \
		$(KUBECTL) -n $(SYSTEM) rollout status "$$w" --timeout=180s; done

.PHONY: mesh
mesh: ## Create the Mesh with default settings, and wait until it is ready.
	$(KUBECTL) apply --server-side -f config/samples/fairway_v1alpha1_mesh.yaml
	$(KUBECTL) wait meshes.fairway.dev/default --for=condition=Ready --timeout=180s

.PHONY: undeploy
undeploy: ## Remove the Mesh, which lets every pod go, then everything else.
	@if $(KUBECTL) get customresourcedefinition meshes.fairway.dev >/dev/null 2>&1; then \
		$(KUBECTL) delete meshes.fairway.dev --all --ignore-not-found --timeout=60s; fi
	@$(KUBECTL) -n $(SYSTEM) wait --for=delete daemonset/fairway-node --timeout=120s || \
		echo "the operator does not take the node proxies down; going on without it"
	$(KUBECTL) delete -k config/agents-before-1.36 --ignore-not-found
	$(KUBECTL) delete -k config/default --ignore-not-found

##@ Conformance

# The suite runs with the CRDs of its own release, a later one than the mesh is built for, and needs a later Go. Its reports
# are kept by release, as the Gateway API's project keeps them.
CONFORMANCE := cd test/conformance && $(LATER_GO)
CONFORMANCE_REPORT := test/conformance/reports/v1.7.0/experimental-v0.1.0-default-report.yaml
# In the end the CRDs are those of all other tests again.
RUN_CONFORMANCE = status=0; ($(CONFORMANCE) $(GOTEST_SUITE) -count=1 -timeout 30m . -args -report-output $(abspath $(CONFORMANCE_REPORT))) || status=$$$$?; \
	$(MAKE) allow-experimental-crds gateway-api-crds GATEWAY_API_CHANNEL=experimental GATEWAY_API_MODULE=.; \
	$(KUBECTL) delete customresourcedefinition xtelemetrypolicies.gateway.networking.x-k8s.io --ignore-not-found; exit $$$$status

.PHONY: conformance
conformance: $(GOTESTSUM) ## Run the Gateway API's conformance suite on the dev cluster (root), with the CRDs of the suite's release.
	@if [ "$$(id -u)" != 0 ]; then echo "skipped: conformance needs root for the dev cluster"; exit 0; fi; \
	mkdir -p $(dir $(CONFORMANCE_REPORT)); \
	$(MAKE) on-devcluster IMAGES=--conformance GATEWAY_API_MODULE=test/conformance RUN='$(RUN_CONFORMANCE)'

# The dev cluster and the demo bring their own targets.
-include hack/devcluster/devcluster.mk
-include hack/demo/demo.mk
