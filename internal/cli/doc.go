// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cli holds the commands that people use. They read Kubernetes objects through the API server, and the
// read-only interfaces of operator and agents (package introspect) through its port-forward. Two change something, and
// say what before: uninstall deletes the Mesh, and "waypoint apply" makes a Gateway.
package cli
