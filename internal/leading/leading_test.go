// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package leading

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// replica writes all the time while it leads.
type replica struct {
	*Lead
	began atomic.Int32
	end   func()

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

// away cuts the replica from the API server, or joins it again.
func (r *replica) away(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = away
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

func (r *replica) dial(ctx context.Context, network, address string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return nil, errors.New("the API server is away")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		r.conns = append(r.conns, c)
	}
	return c, err
}

// TestLead: of two replicas one leads at any time, also while the leader can't reach the API server; it goes on
// running, and leads again when the other has gone.
func TestLead(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{})
	var writing atomic.Int32
	start := func(name string) *replica {
		r := &replica{}
		own := rest.CopyConfig(cfg)
		own.Dial = r.dial
		var err error
		r.Lead, err = newLead(Options{
			Config: own, Namespace: metav1.NamespaceDefault, Name: "test", Identity: name, Log: logr.Discard(),
		}, times{lease: 3 * time.Second, renew: 2 * time.Second, retry: 200 * time.Millisecond})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error {
			return r.Run(ctx, func() error {
				r.began.Add(1)
				return nil
			})
		})
		g.Go(func() error {
			for {
				during, done, err := r.During(ctx)
				if err != nil {
					return nil //nolint:nilerr // the test ends
				}
				if !assertAlone(t, writing.Add(1)) {
					done()
					return nil
				}
				<-during.Done()
				writing.Add(-1)
				done()
			}
		})
		r.end = sync.OnceFunc(func() {
			cancel()
			require.NoError(t, g.Wait())
		})
		t.Cleanup(r.end)
		return r
	}
	leads := func(r *replica) func() error {
		return func() error {
			if r.leads() {
				return nil
			}
			return errors.New("it doesn't")
		}
	}
	a := start("a")
	eventually.NoError(t, "a leads", leads(a))
	b := start("b")
	a.away(true)
	eventually.NoError(t, "b leads", leads(b))
	require.False(t, a.leads())
	a.away(false)
	b.end()
	began := time.Now()
	eventually.NoError(t, "a leads again", leads(a))
	require.Less(t, time.Since(began), a.times.lease, "b gave its lease back")
	require.EqualValues(t, 1, a.began.Load())
	require.EqualValues(t, 1, b.began.Load())
}

func (l *Lead) leads() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term != nil
}

func assertAlone(t *testing.T, writing int32) bool {
	if writing != 1 {
		t.Errorf("%d replicas lead at a time", writing)
	}
	return writing == 1
}

// TestReconciler: what is asked for before this replica leads is done once it does, and ends when it no longer does.
func TestReconciler(t *testing.T) {
	l := unelected()
	got, ended := make(chan string, 1), make(chan error, 1)
	r := l.Reconciler(reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
		require.EqualValues(t, 1, Term(ctx))
		got <- req.Name
		<-ctx.Done()
		return reconcile.Result{}, ctx.Err()
	}))
	go func() {
		_, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "x"}})
		ended <- err
	}()
	require.Empty(t, got)
	l.until(time.Now().Add(time.Minute))
	require.Equal(t, "x", <-got)
	l.resign()
	require.NoError(t, <-ended, "to lose the lead is no error")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Reconcile(ctx, reconcile.Request{})
	require.ErrorIs(t, err, context.Canceled, "who waits ends with the process")
}

func TestNobodyIsElectedWhereThereIsOne(t *testing.T) {
	var l *Lead
	during, done, err := l.During(t.Context())
	require.NoError(t, err)
	require.NoError(t, during.Err())
	done()
	began := 0
	require.NoError(t, l.Run(t.Context(), func() error { began++; return nil }))
	require.Equal(t, 1, began)
}
