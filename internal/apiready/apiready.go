// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apiready waits for the API server where nothing can be set up without it.
package apiready

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"github.com/fairway-mesh/fairway/internal/wake"
)

const (
	// askEvery is short: once the API server is back, what waits is soon at work.
	askEvery = time.Second
	askFor   = 5 * time.Second
	sayEvery = time.Minute
)

// Await returns nil once the API server answers, be it by a refusal, which is the caller's to explain; and the
// context's error if that ends before. A process that ended instead would be started again later each time, in the end
// five minutes after the API server is back.
func Await(ctx context.Context, cfg *rest.Config, log logr.Logger) error {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = askFor
	client, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return fmt.Errorf("make a client to ask the API server: %w", err)
	}
	for said := (time.Time{}); ; {
		err := client.RESTClient().Get().AbsPath("/version").MaxRetries(0).Do(ctx).Error()
		if answers(err) {
			return nil
		}
		if time.Since(said) >= sayEvery {
			said = time.Now()
			log.Error(err, "the API server doesn't answer; nothing can be done before it does. If it runs, see whether "+
				"this pod's network reaches the address, and its authority is that of the pod's service account",
				"address", cfg.Host)
		}
		if !wake.After(ctx, askEvery) {
			return ctx.Err()
		}
	}
}

// answers tells whether an error is an answer of an API server that has started.
func answers(err error) bool {
	if err == nil {
		return true
	}
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code < http.StatusInternalServerError
}
