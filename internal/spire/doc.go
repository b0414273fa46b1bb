// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package spire has identities from the SPIRE agent of a node: that of this process by the Workload API, those of the
// node's pods by the Delegated Identity API. It says what SPIRE gives and why it doesn't; what is used of it, others
// decide.
package spire

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/fairway-mesh/fairway/internal/identity"
)

const (
	// firstRetry and retryMax bound the wait after a failure, which doubles in between.
	firstRetry = 200 * time.Millisecond
	retryMax   = 30 * time.Second
	// patience is how long an agent may take for its first answer: a server signs within a second.
	patience = 15 * time.Second
	// maxMessage bounds an answer: certificates and keys of all pods of one account on a node.
	maxMessage = 4 << 20
	// mostNamed is how many identities a message names.
	mostNamed = 3
)

// dialOptions notice soon that the agent is back. It restarts with each upgrade.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: 5 * time.Second,
			Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: 2, MaxDelay: 3 * time.Second, Jitter: 0.5},
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 5 * time.Minute, Timeout: 20 * time.Second}),
		grpc.WithDisableServiceConfig(),
	}
}

// repeat calls follow until the context ends. Whatever ends it is an error, which is told; a follow that got somewhere
// is repeated soon.
func repeat(ctx context.Context, follow func(context.Context, func()) error, failed func(error)) {
	fresh := wait.Backoff{Duration: firstRetry, Factor: 2, Jitter: 0.5, Cap: retryMax, Steps: math.MaxInt}
	retry := fresh
	for {
		err := follow(ctx, func() { retry = fresh })
		if ctx.Err() != nil {
			return
		}
		failed(err)
		t := time.NewTimer(retry.Step())
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// explain says what a person can do about an error of the agent.
func explain(err error, socket, denied string) error {
	if _, gone := os.Stat(socket); errors.Is(gone, os.ErrNotExist) {
		return fmt.Errorf("there is no socket of a SPIRE agent at %s: SPIRE's agent doesn't run on this node, or has its "+
			"socket elsewhere", socket)
	} else if gone != nil {
		return fmt.Errorf("the SPIRE agent's socket can't be reached: %w", gone)
	}
	switch s := status.Convert(err); s.Code() {
	case codes.PermissionDenied:
		return fmt.Errorf("SPIRE's agent refuses (%s): %s", s.Message(), denied)
	case codes.Unavailable:
		return fmt.Errorf("SPIRE's agent at %s doesn't answer: %s", socket, s.Message())
	default:
		return fmt.Errorf("SPIRE's agent at %s: %s (%s)", socket, s.Message(), s.Code())
	}
}

// pick takes the identity that was asked for, that which lasts longest. Any other is refused: it would be used for what
// it isn't.
func pick(id string, given []*x509svid.SVID) (identity.SVID, error) {
	var best *x509svid.SVID
	var others []string
	for _, s := range given {
		switch {
		case s.ID.String() != id:
			others = append(others, s.ID.String())
		case best == nil || s.Certificates[0].NotAfter.After(best.Certificates[0].NotAfter):
			best = s
		}
	}
	switch {
	case best != nil:
		return identity.NewSVID(best), nil
	case len(others) == 0:
		return identity.SVID{}, errNoEntry
	}
	more := ""
	if n := len(others) - mostNamed; n > 0 {
		others, more = others[:mostNamed], fmt.Sprintf(" and %d more", n)
	}
	return identity.SVID{}, fmt.Errorf("SPIRE gives %.300q%s, which is refused: the registration entry must have "+
		"the SPIFFE ID %s", others, more, id)
}

var errNoEntry = errors.New("SPIRE has no registration entry for it on this node yet")

// own are the roots of a trust domain in DER, one after the other.
func own(der []byte) ([]*x509.Certificate, error) {
	roots, err := x509.ParseCertificates(der)
	if err == nil {
		err = identity.Given(roots)
	}
	if err != nil {
		return nil, fmt.Errorf("SPIRE's trust bundle can't be used: %w", err)
	}
	return roots, nil
}
