// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command certmanager runs cert-manager's own controllers for the issuers that Fairway is tested with: CA and
// self-signed. cert-manager's own command is in a module that can't be had by itself, so this is a main of our own
// around the same code. There is no webhook: what it would default, the CRDs default as well.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	"github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	"github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"         // issuers of type ca
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned" // issuers of type selfSigned
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
)

const (
	// workers per controller, and requests of the API server in a second: cert-manager's own defaults, so that what is
	// measured with it is what others have.
	workers  = 5
	apiQPS   = 20
	apiBurst = 50
	// healthAddress answers the kubelet's readiness probe.
	healthAddress = ":9403"
	// firstBackoff and lastBackoff bound the wait before a failed certificate is asked for again. cert-manager's own
	// first one is an hour, too long for a cluster that is watched while it is set up.
	firstBackoff = 10 * time.Second
	lastBackoff  = 32 * time.Hour
)

// enabled lists the controllers to run; importing their packages has registered them.
var enabled = []string{
	issuers.ControllerName, clusterissuers.ControllerName,
	trigger.ControllerName, keymanager.ControllerName, requestmanager.ControllerName, issuing.ControllerName,
	readiness.ControllerName, revisionmanager.ControllerName,
	approver.ControllerName, ca.CRControllerName, selfsigned.CRControllerName,
}

func main() {
	var opts controller.ContextOptions
	flag.StringVar(&opts.Kubeconfig, "kubeconfig", "", "kubeconfig; empty in a pod")
	flag.StringVar(&opts.ClusterResourceNamespace, "cluster-resource-namespace", "cert-manager",
		"where Secrets of ClusterIssuers are")
	approve := flag.Bool("approve", true, "approve every request, as cert-manager does by default")
	health := flag.String("health", healthAddress, "address that answers the kubelet's readiness probe")
	flag.Parse()
	opts.KubernetesAPIQPS, opts.KubernetesAPIBurst = apiQPS, apiBurst
	opts.CopiedAnnotationPrefixes = []string{"*", "-kubectl.kubernetes.io/", "-argocd.argoproj.io/"}
	opts.CertificateRequestMinimumBackoffDuration = firstBackoff
	opts.CertificateRequestMaximumBackoffDuration = lastBackoff

	if err := run(opts, *approve, *health); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "cert-manager:", err)
		os.Exit(1)
	}
}

// run returns when a controller fails or the process is told to end.
func run(opts controller.ContextOptions, approve bool, health string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	g, ctx := errgroup.WithContext(logf.NewContext(ctx, klog.Background()))
	factory, err := controller.NewContextFactory(ctx, opts)
	if err != nil {
		return err
	}
	var all []controller.Interface
	for _, name := range enabled {
		if name == approver.ControllerName && !approve {
			continue
		}
		construct, ok := controller.Known()[name]
		if !ok {
			return fmt.Errorf("controller %s is not registered", name)
		}
		c, err := construct(factory)
		if err != nil {
			return fmt.Errorf("controller %s: %w", name, err)
		}
		all = append(all, c)
	}
	// Constructing the controllers has said which informers are needed.
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	for _, c := range all {
		g.Go(func() error { return c.Run(workers, ctx) })
	}
	var ready atomic.Bool
	g.Go(func() error { return serveHealth(ctx, health, &ready) })
	shared.SharedInformerFactory.WaitForCacheSync(ctx.Done())
	shared.KubeSharedInformerFactory.WaitForCacheSync(ctx.Done())
	ready.Store(true)
	return g.Wait()
}

// serveHealth answers 200 on /readyz once the caches are filled.
func serveHealth(ctx context.Context, address string, ready *atomic.Bool) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	s := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}
