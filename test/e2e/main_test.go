// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// enable must be set, because the tests restart and remove the mesh of the cluster that KUBECONFIG names.
const enable = "FAIRWAY_E2E"

// world is the cluster under test.
var world struct {
	config    *rest.Config
	client    client.Client
	clientset *kubernetes.Clientset
}

func TestMain(m *testing.M) {
	if os.Getenv(enable) == "" || os.Getenv("KUBECONFIG") == "" {
		fmt.Printf("skipped: end-to-end tests need a cluster with Fairway: set KUBECONFIG and %s=1 (make test-e2e)\n", enable)
		os.Exit(0)
	}
	if err := connect(); err != nil {
		fmt.Println("e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func connect() error {
	klog.SetLogger(logr.Discard())
	ctrllog.SetLogger(logr.Discard())
	cfg, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	cfg.QPS, cfg.Burst = 200, 400
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, gwv1.Install, gwv1beta1.Install, gwxv1alpha1.Install, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	world.config = cfg
	if world.client, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if world.clientset, err = kubernetes.NewForConfig(cfg); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	mesh := &v1alpha1.Mesh{}
	if err := world.client.Get(ctx, types.NamespacedName{Name: names.Mesh}, mesh); err != nil {
		return fmt.Errorf("the cluster has no mesh (make deploy, then create a Mesh): %w", err)
	}
	return nil
}

// lasting is the context of a test for what it also does after its end, to put back what it changed.
func lasting(t *testing.T) context.Context { return context.WithoutCancel(t.Context()) }
