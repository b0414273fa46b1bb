// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
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

// connection holds kubectl's flags that say which cluster, and what they lead to.
type connection struct {
	flags *genericclioptions.ConfigFlags
}

// rare flags work as those of kubectl, and are left out of the help.
var rare = []string{
	"as-group", "as-uid", "as-user-extra", "certificate-authority", "client-certificate", "client-key", "cluster",
	"disable-compression", "insecure-skip-tls-verify", "server", "tls-server-name", "token", "user",
}

// config are the flags. Nothing is cached on disk, for nothing is asked for by discovery.
func (c *connection) config() *genericclioptions.ConfigFlags {
	if c.flags == nil {
		c.flags = genericclioptions.NewConfigFlags(false)
		c.flags.CacheDir, c.flags.Namespace = nil, nil
	}
	return c.flags
}

func (c *connection) add(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	c.config().AddFlags(f)
	for _, name := range rare {
		f.Lookup(name).Hidden = true
	}
	// What kubectl says of these would be about kubectl.
	f.Lookup("kubeconfig").Usage = "kubeconfig file (default: $KUBECONFIG, else ~/.kube/config)"
	f.Lookup("context").Usage = "context of the kubeconfig file to use"
	f.Lookup("request-timeout").Usage = "give up one request to the API server after this time (0: never)"
	f.Lookup("as").Usage = "user to impersonate, for one with the right to"
	c.completeFlags(cmd)
}

func (c *connection) addNamespace(cmd *cobra.Command) {
	c.config().Namespace = new("")
	cmd.PersistentFlags().StringVarP(c.flags.Namespace, "namespace", "n", "", "namespace (default: that of the context)")
	c.completeNamespace(cmd)
}

// namespace that was asked for; "": none.
func (c *connection) namespace() string {
	if c.config().Namespace == nil {
		return ""
	}
	return *c.flags.Namespace
}

// cluster is a connection made.
type cluster struct {
	client client.Client
	reach  reacher
	// called is the context and the address that lead to it, for people; empty if nobody has connected.
	called    string
	namespace string
	logs      logReader
	// version of Kubernetes, as the API server has it; empty if it doesn't say.
	version string
}

// connect finds the cluster, and makes sure that its API server is there and takes the credentials.
func (c *connection) connect(ctx context.Context) (*cluster, error) {
	if name := c.namespace(); name != "" {
		if err := badNamespace(name); err != nil {
			return nil, usagef("-n: %w", err)
		}
	}
	// client-go would log what the commands say themselves.
	klog.SetLogger(logr.Discard())
	ctrllog.SetLogger(logr.Discard())
	loader := c.config().ToRawKubeConfigLoader()
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, fmt.Errorf("no cluster to talk to: %w", err)
	}
	// kubectl would go to localhost:8080 then.
	if clientcmdapi.IsConfigEmpty(&raw) && *c.flags.APIServer == "" && os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		return nil, errors.New("no cluster to talk to: there is no kubeconfig (KUBECONFIG, --kubeconfig), or it is empty")
	}
	cfg, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("no cluster to talk to: %w", err)
	}
	server, err := knock(ctx, cfg, c.where(raw))
	if err != nil {
		return nil, err
	}
	cfg.QPS, cfg.Burst = clientQPS, clientBurst
	namespace := c.namespace()
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
		called: c.called(raw, cfg),
	}, nil
}

// where says by which context the kubeconfig leads to the cluster.
func (c *connection) where(raw clientcmdapi.Config) string {
	name := cmp.Or(*c.flags.Context, raw.CurrentContext)
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" (context %q)", name)
}

// called names the cluster in a line of its own.
func (c *connection) called(raw clientcmdapi.Config, cfg *rest.Config) string {
	if name := cmp.Or(*c.flags.Context, raw.CurrentContext); name != "" {
		return "context " + name + ", " + cfg.Host
	}
	return cfg.Host
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
