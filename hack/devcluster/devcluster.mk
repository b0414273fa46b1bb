# Targets of the dev cluster. Included by the Makefile at the top.

##@ Dev cluster (root)

DEVCLUSTER ?= hack/devcluster/devcluster

.PHONY: cluster
cluster: ## Start a real two-node Kubernetes in network namespaces, and load the images of the working tree.
	$(DEVCLUSTER) up
	$(DEVCLUSTER) images
	@printf 'The cluster is up: use hack/kubectl, or   eval "$$(%s env)"\n' $(DEVCLUSTER)

.PHONY: cluster-down
cluster-down: ## Stop the dev cluster; the built binaries stay.
	$(DEVCLUSTER) down

.PHONY: cluster-clean
cluster-clean: ## Stop the dev cluster and remove what it has built, which takes minutes to build anew.
	$(DEVCLUSTER) clean

.PHONY: images
images: ## Build the images of the working tree, Envoy and the test tool, and load what changed into the dev cluster.
	$(DEVCLUSTER) images

.PHONY: cert-manager
cert-manager: ## Build cert-manager and install it into the dev cluster.
	$(DEVCLUSTER) cert-manager
