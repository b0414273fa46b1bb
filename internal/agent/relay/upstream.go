// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/fairway-mesh/fairway/internal/xds"
)

type (
	request  = discoveryv3.DeltaDiscoveryRequest
	response = discoveryv3.DeltaDiscoveryResponse
)

const (
	maxResponseBytes = 256 << 20 // far above what the operator puts into one response
	backoffFactor    = 2
	backoffJitter    = 0.5
)

// connectForever keeps one stream to the operator. The wait between attempts grows while they fail, and starts over
// after a stream that the operator accepted.
func (r *Relay) connectForever(ctx context.Context, conn *grpc.ClientConn) error {
	fresh := wait.Backoff{
		Duration: r.opts.firstBackoff, Factor: backoffFactor, Jitter: backoffJitter, Steps: 1 << 30,
		Cap: r.opts.backoffMax,
	}
	backoff := fresh
	for {
		conn.ResetConnectBackoff() // the wait is ours alone
		accepted, err := r.stream(ctx, conn)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if accepted {
			backoff = fresh
		}
		pause := backoff.Step()
		text := status.Convert(err).Message()
		r.setStatus(false, text)
		r.metrics.breaks.Inc()
		r.log.Info("no xDS stream to the operator, serving the last known resources", "reason", text, "retryIn",
			pause.String())
		if err := r.pause(ctx, pause); err != nil {
			return err
		}
	}
}

// pause waits between two attempts. A connection that waits for the operator's answer cuts it short, but not below the
// first backoff.
func (r *Relay) pause(ctx context.Context, long time.Duration) error {
	end := time.NewTimer(long)
	defer end.Stop()
	short := time.NewTimer(wait.Jitter(r.opts.firstBackoff, backoffJitter))
	defer short.Stop()
	for over, hurried := false, false; !over || !hurried; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return nil
		case <-short.C:
			over = true
		case <-r.hurry:
			hurried = true
		}
	}
	return nil
}

// stream runs one stream until it breaks. accepted tells whether the operator let it in.
func (r *Relay) stream(ctx context.Context, conn *grpc.ClientConn) (accepted bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(
		ctx, grpc.MaxCallRecvMsgSize(maxResponseBytes))
	if err != nil {
		return false, err
	}
	responses, failed := make(chan *response), make(chan error, 1)
	opened := make(chan metadata.MD, 1)
	go func() {
		// The operator sends its header once it has authenticated the stream.
		if md, err := s.Header(); err == nil && md != nil {
			opened <- md
		}
		for {
			resp, err := s.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case responses <- resp:
			case <-ctx.Done():
				return
			}
		}
	}()
	select {
	case md := <-opened:
		if r.opts.Greeted != nil {
			r.opts.Greeted(md)
		}
	case err := <-failed:
		return false, err
	}
	r.mu.Lock()
	for _, t := range r.types {
		t.reset()
	}
	r.mu.Unlock()
	r.setStatus(true, "")
	r.log.Info("connected to the operator")
	for {
		for _, req := range r.requests() {
			if err := s.Send(req); err != nil {
				return true, broken(responses, failed)
			}
		}
		select {
		case resp := <-responses:
			r.receive(ctx, resp)
		case <-r.wake:
		case err := <-failed:
			return true, err
		}
	}
}

// broken is why a stream broke: sending says io.EOF only, and receiving says why. Until it does, it has to get rid of
// what arrived before.
func broken(responses <-chan *response, failed <-chan error) error {
	for {
		select {
		case <-responses:
		case err := <-failed:
			return err
		}
	}
}

// order of the types in which to ask; the operator orders its answers by itself. What a scope made Envoy ask for comes
// before its ACK, so that the operator has what follows wait for it; so does what a listener did.
var order = []string{
	xds.TypeCluster, xds.TypeEndpoint, xds.TypeExtension, xds.TypeListener, xds.TypeRoute, xds.TypeScopedRoute,
}

func rank(typeURL string) int {
	if i := slices.Index(order, typeURL); i >= 0 {
		return i
	}
	return len(order)
}

// requests returns all that the operator should hear now.
func (r *Relay) requests() []*request {
	r.mu.Lock()
	defer r.mu.Unlock()
	urls := slices.SortedFunc(maps.Keys(r.types), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	var out []*request
	for _, url := range urls {
		t := r.types[url]
		if !t.opened {
			if len(t.subscribed) > 0 {
				out = append(out, r.first(t))
			}
			continue
		}
		if len(t.toSubscribe)+len(t.toUnsubscribe) > 0 {
			out = append(out, &request{
				TypeUrl:                  url,
				ResourceNamesSubscribe:   slices.Sorted(maps.Keys(t.toSubscribe)),
				ResourceNamesUnsubscribe: slices.Sorted(maps.Keys(t.toUnsubscribe)),
			})
			t.toSubscribe, t.toUnsubscribe = map[string]struct{}{}, map[string]struct{}{}
		}
		for _, v := range t.acks {
			req := &request{TypeUrl: url, ResponseNonce: v.nonce}
			if v.err != "" {
				r.metrics.nacks.Inc()
				req.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: v.err}
			}
			out = append(out, req)
		}
		t.acks = nil
	}
	return out
}

// first subscribes to everything of a type at once, and says what need not be sent: the versions that Envoy accepted,
// or that no Envoy has yet to decide about.
func (r *Relay) first(t *relayed) *request {
	t.opened = true
	t.toSubscribe, t.toUnsubscribe = map[string]struct{}{}, map[string]struct{}{}
	req := &request{
		Node:                    &corev3.Node{Id: r.opts.NodeID},
		TypeUrl:                 t.typeURL,
		ResourceNamesSubscribe:  slices.Sorted(maps.Keys(t.subscribed)),
		InitialResourceVersions: map[string]string{},
	}
	for name, k := range t.known {
		switch {
		case k.current == nil, r.mayHaveMore(k.current):
		case k.rejected == k.current.Version():
			if k.good != nil {
				req.InitialResourceVersions[name] = operatorsVersion(k.good.Version())
			}
		case r.state(xds.ID{TypeURL: t.typeURL, Name: name}).Settled():
			req.InitialResourceVersions[name] = operatorsVersion(k.current.Version())
			k.told = acked
		}
	}
	return req
}

// receive takes a response in and answers it as soon as Envoy has decided.
func (r *Relay) receive(ctx context.Context, resp *response) {
	resources, err := r.unwrap(resp)
	if r.opts.Ahead != nil {
		var ids []xds.ID
		for _, res := range resources {
			ids = append(ids, xds.ID{TypeURL: resp.GetTypeUrl(), Name: res.Name()})
		}
		for _, name := range resp.GetRemovedResources() {
			ids = append(ids, xds.ID{TypeURL: resp.GetTypeUrl(), Name: name})
		}
		defer r.opts.Ahead(ctx, ids)()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.ensureType(resp.GetTypeUrl())
	if err != nil {
		t.acks = append(t.acks, ack{nonce: resp.GetNonce(), err: err.Error()})
		return
	}
	r.metrics.received.Add(float64(len(resources)))
	in := r.apply(t, resp.GetNonce(), resources, resp.GetRemovedResources())
	for name := range in.waiting {
		r.settle(t, in, name)
	}
	t.pending = append(t.pending, in)
	r.acknowledge(t)
}

// unwrap checks the envelope and adapts the content, which is Envoy's to judge. Versions stay the operator's.
func (r *Relay) unwrap(resp *response) ([]*xds.Resource, error) {
	out := make([]*xds.Resource, 0, len(resp.GetResources()))
	var errs []error
	for _, w := range resp.GetResources() {
		if w.GetResource() == nil {
			continue // a heartbeat
		}
		if got := w.GetResource().GetTypeUrl(); got != resp.GetTypeUrl() {
			errs = append(errs, fmt.Errorf("resource %q is a %s in a response of %s", w.GetName(), got, resp.GetTypeUrl()))
			continue
		}
		packed := w.GetResource()
		if adapt := r.opts.Adapt[resp.GetTypeUrl()]; adapt != nil {
			var err error
			if packed, err = adapt(packed); err != nil {
				errs = append(errs, fmt.Errorf("resource %q: %w", w.GetName(), err))
				continue
			}
		}
		res, err := xds.NewRawResource(w.GetName(), w.GetVersion(), packed)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, res)
	}
	return out, errors.Join(errs...)
}

// sweepForever ends subscriptions that no Envoy renewed.
func (r *Relay) sweepForever(ctx context.Context) error {
	tick := time.NewTicker(r.opts.linger / 2)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			r.sweep(now)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
