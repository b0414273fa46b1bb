// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package scale runs a pair of operators, as processes in network namespaces of their own, against a real etcd and
// kube-apiserver with a large cluster in it, and against simulated proxies: streams of delta xDS that authenticate,
// ask, remember and acknowledge as agents do. Nodes and pods are objects; what kubelets, agents and controllers of
// workloads write of them, the test writes.
//
// By itself the cluster is small, and the test holds that every stream gets what it asks, that statuses settle, that a
// change reaches only those whom it concerns, and that a restart sends nothing again. `make scale` runs it large, and
// writes what was measured.
//
// Its benchmark measures what routes cost the operators: to be created, and an edit of one among them. Little else is
// there, so what the operators use is what the change cost:
//
//	go test -run '^$' -bench . -benchtime 1x ./test/scale
//
// -profiles names a directory for profiles of CPU and heap of both operators, for each thing that is measured;
// -operator-env='GOGC=50' sets variables of the operators.
package scale
