// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package direct has each certificate signed by an issuer of cert-manager: it makes a CertificateRequest of a request
// that the operator has allowed, waits for what becomes of it, and deletes it. It never sees a private key, and judges
// no certificate: identity does.
package direct

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// maxUnderWay bounds the requests of one replica that cert-manager works on, so the objects, too. With cert-manager's
	// own defaults each is done in a few seconds even so.
	maxUnderWay = 32
	// queueWait is how long a request waits until it may be made; whoever asked is told to come again then. patience is
	// how long its answer is waited for: given up on sooner, an issuer that is slow would sign in vain.
	queueWait = 10 * time.Second
	patience  = 45 * time.Second
	// fastest and slowest bound how many requests are made in a second. Each that fails halves the rate, one that
	// succeeds restores it: an issuer that refuses everything isn't asked for everything.
	fastest = 50
	slowest = 1
	// deleteTimeout bounds the deletion of a request that is done with.
	deleteTimeout = 10 * time.Second
)

// Options of an Issuer.
type Options struct {
	// Client reads and writes CertificateRequests past any cache.
	Client client.WithWatch
	// Namespace of the operator, Pod its name there; empty outside of a cluster.
	Namespace, Pod string
	Log            logr.Logger
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Issuer asks issuers of cert-manager. Make it with New, and run it with Start. It is safe for concurrent use.
type Issuer struct {
	opts    Options
	slots   chan struct{}
	rate    *rate.Limiter
	metrics *metrics
	// owner is this replica's pod: what it leaves goes with it.
	owner atomic.Pointer[metav1.OwnerReference]
	// wanted is closed once somebody asks: only then is anything watched, since not every cluster has cert-manager.
	wanted func()
	asked  chan struct{}

	queueWait, patience time.Duration

	mu      sync.Mutex
	waiting map[string]chan verdict // by the name of the request
}

// New makes an issuer.
func New(o Options) *Issuer {
	i := &Issuer{
		opts: o, slots: make(chan struct{}, maxUnderWay), rate: rate.NewLimiter(fastest, maxUnderWay),
		metrics: newMetrics(o.Registerer), waiting: map[string]chan verdict{}, asked: make(chan struct{}),
		queueWait: queueWait, patience: patience,
	}
	i.wanted = sync.OnceFunc(func() { close(i.asked) })
	return i
}

// Issue implements identity.ExternalIssuer.
func (i *Issuer) Issue(ctx context.Context, req identity.ExternalRequest) (identity.ExternalAnswer, error) {
	i.wanted()
	release, err := i.enter(ctx)
	if err != nil {
		i.metrics.done(err, 0)
		return identity.ExternalAnswer{}, err
	}
	defer release()
	start := time.Now()
	answer, err := i.ask(ctx, req)
	i.adapt(err)
	i.metrics.done(err, time.Since(start))
	if err != nil {
		return identity.ExternalAnswer{}, named(err, req.Issuer)
	}
	return answer, nil
}

// enter waits for a slot and for the rate.
func (i *Issuer) enter(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, i.queueWait)
	defer cancel()
	busy := identity.Issuef(identity.IssueBusy, "too many certificates are being asked of the issuer; ask again later")
	select {
	case i.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, busy
	}
	if i.rate.Wait(ctx) != nil {
		<-i.slots
		return nil, busy
	}
	return func() { <-i.slots }, nil
}

// adapt makes the rate follow the issuer's success.
func (i *Issuer) adapt(err error) {
	var failure *identity.IssueError
	switch {
	case err == nil:
		i.rate.SetLimit(fastest)
	case errors.As(err, &failure) && failure.Reason == identity.IssueBusy: // not the issuer's doing
	default:
		i.rate.SetLimit(max(i.rate.Limit()/2, slowest))
	}
}

// named puts the issuer into what is said of it.
func named(err error, issuer identity.IssuerRef) error {
	var failure *identity.IssueError
	if errors.As(err, &failure) {
		return identity.Issuef(failure.Reason, "no certificate from %s: %s", issuer, failure.Message)
	}
	return err
}

// ask makes a request, waits for its verdict and deletes it.
func (i *Issuer) ask(asker context.Context, req identity.ExternalRequest) (identity.ExternalAnswer, error) {
	ctx, cancel := context.WithTimeout(asker, i.patience)
	defer cancel()
	cr := i.request(req)
	verdicts := i.await(cr.Name)
	defer i.forget(cr.Name)
	if err := i.opts.Client.Create(ctx, cr); err != nil {
		if apierrors.ReasonForError(err) == metav1.StatusReasonUnknown { // the answer is lost, so it may be there
			i.remove(ctx, cr)
		}
		return identity.ExternalAnswer{}, gone(asker, notMade(err))
	}
	defer i.remove(ctx, cr)
	last := "nothing is known of the request: may the operator watch certificaterequests in its namespace?"
	for {
		select {
		case v := <-verdicts:
			if v.failure != nil {
				return identity.ExternalAnswer{}, v.failure
			}
			if v.answer != nil {
				return *v.answer, nil
			}
			last = v.pending
		case <-ctx.Done():
			return identity.ExternalAnswer{},
				gone(asker, identity.Issuef(identity.IssueUnavailable, "no answer within %s: %s", i.patience, last))
		}
	}
}

// gone replaces a failure for which whoever asked is to blame, having left before the answer.
func gone(asker context.Context, failure error) error {
	if asker.Err() != nil {
		return identity.Issuef(identity.IssueBusy, "whoever asked has gone")
	}
	return failure
}

// notMade says why there is no request.
func notMade(err error) error {
	switch {
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
		return identity.Issuef(identity.IssueUnavailable,
			"the cluster doesn't serve certificaterequests.cert-manager.io; install cert-manager")
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
		return identity.Issuef(identity.IssueFailed, "the CertificateRequest is refused: %s", said(err.Error()))
	}
	return identity.Issuef(identity.IssueUnavailable, "the CertificateRequest can't be made: %s", said(err.Error()))
}

// request is the object that asks for one certificate. Nothing of the CSR is repeated: the issuer takes the names from
// it, and the rest is here.
func (i *Issuer) request(req identity.ExternalRequest) *certmanagerv1.CertificateRequest {
	cr := &certmanagerv1.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   i.opts.Namespace,
			Name:        "fairway-identity-" + rand.String(10),
			Labels:      i.labels(),
			Annotations: map[string]string{names.AnnotationIdentity: req.Identity},
		},
		Spec: certmanagerv1.CertificateRequestSpec{
			Request:  req.CSR,
			Duration: &metav1.Duration{Duration: req.Lifetime},
			IssuerRef: cmmeta.IssuerReference{
				Name: req.Issuer.Name, Kind: req.Issuer.Kind, Group: req.Issuer.Group,
			},
			Usages: []certmanagerv1.KeyUsage{
				certmanagerv1.UsageDigitalSignature, certmanagerv1.UsageClientAuth, certmanagerv1.UsageServerAuth,
			},
		},
	}
	if owner := i.owner.Load(); owner != nil {
		cr.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	return cr
}

// labels are those of the requests of this replica.
func (i *Issuer) labels() map[string]string {
	pod := i.opts.Pod
	if len(pod) > labelValue {
		pod = "x" + pod[len(pod)-labelValue+1:] // the end is what tells pods apart
	}
	return map[string]string{names.LabelManagedBy: names.ManagedBy, names.LabelReplica: pod}
}

// labelValue is the longest value of a label.
const labelValue = 63

// await registers for verdicts on a request, before it is made: the watch may be quicker than the answer to Create.
func (i *Issuer) await(name string) <-chan verdict {
	i.mu.Lock()
	defer i.mu.Unlock()
	ch := make(chan verdict, 1)
	i.waiting[name] = ch
	return ch
}

func (i *Issuer) forget(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.waiting, name)
}

// tell passes a verdict to who waits for it; it never blocks.
func (i *Issuer) tell(name string, v verdict) {
	i.mu.Lock()
	defer i.mu.Unlock()
	ch, ok := i.waiting[name]
	if !ok {
		return
	}
	select {
	case <-ch: // a verdict that this one replaces
	default:
	}
	ch <- v // only tell sends, under the lock, so there is room
}

// remove deletes a request. What it can't delete goes later: sweep finds it.
func (i *Issuer) remove(ctx context.Context, cr *certmanagerv1.CertificateRequest) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
	defer cancel()
	if err := client.IgnoreNotFound(i.opts.Client.Delete(ctx, cr)); err != nil {
		i.opts.Log.Info("a CertificateRequest can't be deleted, trying again later", "name", cr.Name, "reason", err.Error())
	}
}

// Start watches requests once there are any, and removes those that nobody waits for, until the context ends.
func (i *Issuer) Start(ctx context.Context) error {
	if err := i.recover(ctx); err != nil {
		i.opts.Log.Info("CertificateRequests of a former run can't be deleted, trying again later", "reason", err.Error())
	}
	select {
	case <-i.asked:
	case <-ctx.Done():
		return nil
	}
	if err := i.watch(ctx); err != nil {
		return fmt.Errorf("watch CertificateRequests: %w", err)
	}
	return nil
}

// NeedLeaderElection is false: every replica asks.
func (i *Issuer) NeedLeaderElection() bool { return false }
