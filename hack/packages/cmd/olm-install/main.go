// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command olm-install applies a bundle to the cluster of KUBECONFIG as the Operator Lifecycle Manager does, for
// trying one where there is no lifecycle manager:
//
//	go -C hack/packages run ./cmd/olm-install -bundle ../../bundle -wait 3m
//	go -C hack/packages run ./cmd/olm-install -bundle /path/to/dist/fairway-bundle-0.1.0.tgz
//
// It makes the CRDs and other manifests, the service accounts with their permissions, and the Deployments with the
// labels, annotations and environment that the lifecycle manager gives them; see package olm for what differs. Run
// with another version of the bundle it upgrades. With -delete it removes what goes with a ClusterServiceVersion;
// with -print it writes the objects and asks no cluster. Other flags are -namespace (fairway-system) and -kubeconfig.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/hack/packages/internal/olm"
	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

type options struct {
	bundle, namespace, kubeconfig string

	wait          time.Duration
	remove, print bool
}

func main() {
	var o options
	flag.StringVar(&o.bundle, "bundle", "", "folder of the bundle, or the archive of a release")
	flag.StringVar(&o.namespace, "namespace", "fairway-system", "namespace to install into")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig (default: as kubectl finds it)")
	flag.DurationVar(&o.wait, "wait", 0, "how long to wait for the operator to run")
	flag.BoolVar(&o.remove, "delete", false, "remove what goes with the ClusterServiceVersion")
	flag.BoolVar(&o.print, "print", false, "print the objects, and apply nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "olm-install:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.bundle == "" {
		return errors.New("say which bundle: -bundle FOLDER or -bundle FILE.tgz")
	}
	b, err := olm.Read(o.bundle)
	if err != nil {
		return err
	}
	if o.print {
		objects, err := b.Objects(o.namespace)
		if err != nil {
			return err
		}
		out, err := source.Print(objects)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(out)
		return err
	}
	c, err := connect(o.kubeconfig)
	if err != nil {
		return err
	}
	if o.remove {
		return b.Delete(ctx, c, o.namespace)
	}
	if err := b.Apply(ctx, c, o.namespace); err != nil {
		return err
	}
	if o.wait <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	return b.Wait(ctx, c, o.namespace)
}

func connect(kubeconfig string) (client.Client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	overrides := &clientcmd.ConfigOverrides{}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return nil, err
	}
	return client.New(config, client.Options{})
}
