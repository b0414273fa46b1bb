// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package introspect lets people and the CLI look into the operator and the agents, and never lets them change
// anything.
//
// There are two surfaces. On the loopback address (names.PortAdmin, see Serve) both processes answer read-only JSON; it
// is reached with a port-forward, so Kubernetes' RBAC (the right to create pods/portforward) guards it. On
// names.PortAgent a waypoint's agent answers what kubelet asks: /healthz and /readyz. Metrics of operator and nodes are
// served by package scrape, to those who may read them; a waypoint's, which has no rights in the cluster to ask by, on
// names.PortAgent.
//
// Nothing here returns a private key: Envoy redacts them in its configuration dump, and only the paths in envoyPaths
// are passed on to Envoy's admin interface, all with GET.
package introspect
