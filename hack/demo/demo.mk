# Included by the Makefile at the top. See hack/demo/main.go.

.PHONY: demo demo-down
demo: ## Show Fairway at work on the dev cluster, and leave it running.
	@go run ./hack/demo

demo-down: ## Remove the demo and the dev cluster.
	@go run ./hack/demo -down
