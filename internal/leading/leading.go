// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package leading has one replica at a time write: the replicas elect a leader, and the others wait. One that loses the
// lead, as when the API server can't be reached, stops what it writes and goes on with all else.
package leading

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// A leader that is gone is followed after leaseDuration; one that can't renew its lease stops after renewDeadline. What
// is between the two is for clocks that run at different speeds.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// Options of an election.
type Options struct {
	// Config to reach the API server with.
	Config *rest.Config
	// Namespace and Name of the Lease, and who this replica is there, which no other process may be.
	Namespace, Name, Identity string
	Log                       logr.Logger
}

// Lead tells whether this replica leads. The nil Lead is of the only replica there is, which isn't elected and leads.
type Lead struct {
	lock  resourcelock.Interface
	name  string
	log   logr.Logger
	times times

	mu sync.Mutex
	// term is the present one of this replica's; nil while it doesn't lead. began is closed when the next one begins.
	term     *term
	began    chan struct{}
	resigned bool
	terms    uint64
}

// term is a time for which this replica leads; number counts them.
type term struct {
	number uint64
	ctx    context.Context
	end    context.CancelFunc
	// expiry loses it.
	expiry *time.Timer
	work   sync.WaitGroup // Add is called with Lead.mu held, and before the term ends
}

type times struct{ lease, renew, retry time.Duration }

// New returns the Lead of a replica that doesn't lead yet.
func New(o Options) (*Lead, error) {
	return newLead(o, times{leaseDuration, renewDeadline, retryPeriod})
}

func newLead(o Options, t times) (*Lead, error) {
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, o.Namespace, o.Name,
		resourcelock.ResourceLockConfig{Identity: o.Identity}, o.Config, t.renew)
	if err != nil {
		return nil, fmt.Errorf("make the lock of the election: %w", err)
	}
	l := unelected()
	l.lock, l.name, l.log, l.times = renewals{lock, l}, o.Name, o.Log, t
	return l, nil
}

func unelected() *Lead { return &Lead{began: make(chan struct{})} }

// During returns once this replica leads: a context that ends with the given one or when the lead is lost, and what to
// call when that which is done with it has ended. Its error is the given context's.
func (l *Lead) During(ctx context.Context) (context.Context, func(), error) {
	if l == nil {
		return ctx, func() {}, nil
	}
	for {
		t, next := l.enter()
		if t != nil {
			during, cancel := context.WithCancel(context.WithValue(ctx, inTerm{}, t.number))
			stop := context.AfterFunc(t.ctx, cancel)
			return during, func() {
				stop()
				cancel()
				t.work.Done()
			}, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

type inTerm struct{}

// Term counts the terms of this replica, in a context of During; zero in others. Who remembers something of what it did
// begins anew where it differs: another replica may have led since.
func Term(ctx context.Context) uint64 {
	n, _ := ctx.Value(inTerm{}).(uint64)
	return n
}

func (l *Lead) enter() (*term, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != nil {
		l.term.work.Add(1)
	}
	return l.term, l.began
}

// Reconciler reconciles while this replica leads. What is to be reconciled meanwhile waits in its queue. To lose the
// lead is no error: what was under way is begun anew in the next term.
func (l *Lead) Reconciler(r reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
		during, done, err := l.During(ctx)
		if err != nil {
			return reconcile.Result{}, err
		}
		defer done()
		result, err := r.Reconcile(during, req)
		if err != nil && during.Err() != nil && ctx.Err() == nil {
			return reconcile.Result{RequeueAfter: time.Millisecond}, nil
		}
		return result, err
	})
}

// until is called with each renewal: this replica leads until a time, unless it renews its lease again. That holds
// whatever becomes of the election meanwhile.
func (l *Lead) until(end time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := time.Until(end)
	switch {
	case l.resigned || left <= 0:
	case l.term != nil && l.term.expiry.Reset(left): // it had not fired
	default:
		l.terms++
		t := &term{number: l.terms}
		t.ctx, t.end = context.WithCancel(context.Background())
		t.expiry = time.AfterFunc(left, func() { l.lose(t) })
		l.term = t
		close(l.began)
		l.began = make(chan struct{})
	}
}

// lose has what is done in a term end, and waits for that.
func (l *Lead) lose(t *term) {
	l.mu.Lock()
	if l.term == t {
		l.term = nil
	}
	l.mu.Unlock()
	t.end()
	t.work.Wait()
}

// resign ends what this replica does as the leader, for good.
func (l *Lead) resign() {
	l.mu.Lock()
	l.resigned = true
	t := l.term
	l.mu.Unlock()
	if t != nil {
		t.expiry.Stop()
		l.lose(t)
	}
}

// Run stands for election until the context ends, again after each lead that was lost. begins is called when this
// replica leads for the first time. Its error ends Run.
func (l *Lead) Run(ctx context.Context, begins func() error) error {
	if l == nil {
		return begins()
	}
	// What is under way ends before the Lease is given back: the election outlives the context for so long.
	standing, end := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), l.log))
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, done, err := l.During(ctx)
		if err != nil {
			return nil //nolint:nilerr // it never led
		}
		done()
		return begins()
	})
	g.Go(func() error {
		<-ctx.Done()
		l.resign()
		end()
		return nil
	})
	g.Go(func() error { return l.stand(standing) })
	return g.Wait()
}

// stand for election until the context ends. Who leads is what renewals say; that the elector says so isn't waited for.
func (l *Lead) stand(ctx context.Context) error {
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: l.lock, Name: l.name, ReleaseOnCancel: true,
			LeaseDuration: l.times.lease, RenewDeadline: l.times.renew, RetryPeriod: l.times.retry,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return fmt.Errorf("set up the election: %w", err)
		}
		elector.Run(ctx)
	}
	return nil
}

// renewals is a lock that tells of each time that this replica's lease is renewed.
type renewals struct {
	resourcelock.Interface
	lead *Lead
}

func (r renewals) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return r.renews(record, func() error { return r.Interface.Create(ctx, record) })
}

func (r renewals) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return r.renews(record, func() error { return r.Interface.Update(ctx, record) })
}

func (r renewals) renews(record resourcelock.LeaderElectionRecord, write func() error) error {
	began := time.Now()
	err := write()
	if err == nil && record.HolderIdentity == r.Identity() {
		r.lead.until(began.Add(r.lead.times.renew))
	}
	return err
}
