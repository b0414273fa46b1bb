// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/fairway-mesh/fairway/internal/apiready"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/serve"
)

// awaitAPIServer is the first thing that an operator does. Kubelet, who asks whether it lives, hears that it does: the
// manager's own server isn't there yet.
func awaitAPIServer(ctx context.Context, cfg *rest.Config, log logr.Logger) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", names.PortOperatorHealth))
	if err != nil {
		return fmt.Errorf("listen for kubelet's probes: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(pathAlive, func(http.ResponseWriter, *http.Request) {})
	waiting, done := context.WithCancel(ctx)
	defer done()
	var g errgroup.Group
	g.Go(func() error {
		return serve.HTTP(waiting, &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}, l, time.Second)
	})
	err = apiready.Await(ctx, cfg, log)
	done()
	if ended := g.Wait(); err == nil {
		err = ended
	}
	return err
}
