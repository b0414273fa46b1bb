// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apiserver runs a real kube-apiserver for tests of packages. The product's helpers for that would bring all
// that the product needs into this module, so it takes the same binaries by itself.
package apiserver

import (
	"os"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Start runs one, with nothing installed, until the test ends. Without its binaries the test is skipped.
func Start(t *testing.T) (*rest.Config, client.Client) {
	t.Helper()
	bin := os.Getenv("FAIRWAY_KUBE_BIN")
	if _, err := os.Stat(bin + "/kube-apiserver"); err != nil {
		t.Skip("no kube-apiserver in FAIRWAY_KUBE_BIN: make test-prerequisites builds it")
	}
	env := &envtest.Environment{BinaryAssetsDirectory: bin}
	cfg, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg, c
}
