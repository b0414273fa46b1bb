// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
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
)

// Limits of the CLI's own client, which asks many things at once and is gone.
const (
	clientQPS   = 100
	clientBurst = 200
)

// connection holds the flags that say which cluster, and what they lead to.
type connection struct {
	kubeconfig, context, namespace string
}

func (c *connection) add(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, else ~/.kube/config)")
	f.StringVar(&c.context, "context", "", "context of the kubeconfig file to use")
}

func (c *connection) addNamespace(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVarP(&c.namespace, "namespace", "n", "", "namespace (default: that of the context)")
}

// cluster is a connection made.
type cluster struct {
	client    client.Client
	reach     reacher
	namespace string
	logs      logReader
	// version of Kubernetes, as the API server has it; empty if it doesn't say.
	version string
}

// connect finds the cluster, and makes sure that its API server is there and takes the credentials.
func (c *connection) connect(ctx context.Context) (*cluster, error) {
	// client-go would log what the commands say themselves.
	klog.SetLogger(logr.Discard())
	ctrllog.SetLogger(logr.Discard())
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
	cfg, err := loader.ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, errors.New("no cluster to talk to: there is no kubeconfig (KUBECONFIG, --kubeconfig), or it is empty")
	case err != nil:
		return nil, fmt.Errorf("no cluster to talk to: %w", err)
	}
	server, err := knock(ctx, cfg, c.where(loader))
	if err != nil {
		return nil, err
	}
	cfg.QPS, cfg.Burst = clientQPS, clientBurst
	namespace := c.namespace
	if namespace == "" {
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, fmt.Errorf("no namespace: %w", err)
		}
	}
	cl, err := newClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("the cluster doesn't answer: %w", err)
	}
	return &cluster{
		client: cl, reach: &forwarder{config: cfg}, logs: &podLogs{config: cfg}, namespace: namespace, version: server,
	}, nil
}

// where says by which context the kubeconfig leads to the cluster.
func (c *connection) where(loader clientcmd.ClientConfig) string {
	name := c.context
	if raw, err := loader.RawConfig(); name == "" && err == nil {
		name = raw.CurrentContext
	}
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" (context %q)", name)
}

func newClient(cfg *rest.Config) (client.Client, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	return client.New(cfg, client.Options{Scheme: scheme})
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, gwv1.Install, gwv1beta1.Install, gwxv1alpha1.Install, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return scheme, nil
}
