// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package auth answers who calls the operator and what the caller may have: it authenticates pod-bound service-account
// tokens by TokenReview, turns a caller into an xDS scope, and decides which identities it may get certificates for.
package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/singleflight"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/accept"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Kinds of refusal. Texts that go with them are fit for the caller and say what to do.
var (
	// ErrUnauthenticated: the token is missing, wrong, expired or not for the operator (HTTP 401, gRPC UNAUTHENTICATED).
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrForbidden: the caller is known, but may not have what it asks for (HTTP 403, gRPC PERMISSION_DENIED).
	ErrForbidden = errors.New("refused")
	// ErrUnavailable: it can't be decided now, ask again later (HTTP 503, gRPC UNAVAILABLE).
	ErrUnavailable = errors.New("can't be decided now")
)

// The extra fields of a pod-bound token's review (Kubernetes: ServiceAccountTokenPodNodeInfo, KEP-4193).
const (
	extraPodName  = "authentication.kubernetes.io/pod-name"
	extraPodUID   = "authentication.kubernetes.io/pod-uid"
	extraNodeName = "authentication.kubernetes.io/node-name"
	userPrefix    = "system:serviceaccount:"
)

const (
	// maxTokenBytes bounds a token before it is hashed or sent on; projected tokens have about 1.2 KiB.
	maxTokenBytes = 16 << 10
	// acceptedSize bounds the good verdicts: a few tokens for each of some thousand nodes and waypoint pods. The bad
	// ones have a cache of their own, so that they displace nothing.
	acceptedSize = 8192
	rejectedSize = 1024
	// acceptedFor is how long a deleted pod's token may still be taken; rejectedFor spares the API server a flood.
	acceptedFor = time.Minute
	rejectedFor = 5 * time.Second
	// reviewTimeout bounds one review.
	reviewTimeout = 10 * time.Second
)

// share of the reviews. They cost the API server, and whoever reaches the operator may send ever new tokens. A proxy's
// token is reviewed once a minute. A peer's share is enough for all the proxies of a node, where the network gives them
// its address; all proxies of some hundred nodes come at once when the operator starts, and those of thousands within a
// minute.
var share = accept.Share{PeerPerSecond: 2, PeerBurst: 128, PerSecond: 60, Burst: 600, AtOnce: 16}

// Caller is a pod that has proved who it is.
type Caller struct {
	Namespace      string
	ServiceAccount string
	PodName        string
	PodUID         string
	NodeName       string
}

// String names the caller for logs and errors.
func (c Caller) String() string {
	return fmt.Sprintf("pod %s/%s (service account %s, node %s)", c.Namespace, c.PodName, c.ServiceAccount, c.NodeName)
}

// Bearer is the token of the one Authorization header; several are none, since it would be unclear which counts.
func Bearer(headers []string) string {
	if len(headers) != 1 {
		return ""
	}
	scheme, token, ok := strings.Cut(headers[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// Reviewer is the part of a Kubernetes client that creates a TokenReview.
type Reviewer interface {
	Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error
}

// Authenticator turns bearer tokens into callers. It is safe for concurrent use.
type Authenticator struct {
	reviewer Reviewer
	audience string
	now      func() time.Time
	flights  singleflight.Group
	limits   *accept.Reviews
	reviews  *prometheus.CounterVec

	accepted, rejected *cache.LRUExpireCache
}

type clock func() time.Time

func (c clock) Now() time.Time { return c() }

// outcome is what the caches hold: a caller or the reason of refusal.
type outcome struct {
	caller Caller
	err    error
}

// Results of a token that no cache knew, as values of the label "result".
const (
	resultAccepted = "accepted"
	resultRejected = "rejected"
	// The API server was not asked: the token could not have passed, or there were too many.
	resultHopeless = "hopeless"
	resultLimited  = "limited"
	// The API server gave no verdict.
	resultFailed = "failed"
)

// NewAuthenticator makes an authenticator for tokens of names.TokenAudience. now is time.Now unless a test says else,
// and registerer may be nil.
func NewAuthenticator(r Reviewer, now func() time.Time, registerer prometheus.Registerer) *Authenticator {
	if now == nil {
		now = time.Now
	}
	return &Authenticator{
		reviewer: r,
		audience: names.TokenAudience,
		now:      now,
		accepted: cache.NewLRUExpireCacheWithClock(acceptedSize, clock(now)),
		rejected: cache.NewLRUExpireCacheWithClock(rejectedSize, clock(now)),
		limits:   accept.NewReviews(share),
		reviews: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_token_reviews_total", Help: "Tokens of proxies that were not known yet, by outcome.",
		}, []string{"result"}),
	}
}

// Caller authenticates a token that came from a peer. The error is ErrUnauthenticated or ErrUnavailable.
func (a *Authenticator) Caller(ctx context.Context, token string, peer netip.Addr) (Caller, error) {
	switch {
	case token == "":
		return Caller{}, fmt.Errorf("%w: no bearer token; send a projected service-account token with audience %q",
			ErrUnauthenticated, a.audience)
	case len(token) > maxTokenBytes:
		return Caller{}, fmt.Errorf("%w: the token is too long", ErrUnauthenticated)
	}
	key := sha256.Sum256([]byte(token))
	for _, c := range []*cache.LRUExpireCache{a.accepted, a.rejected} {
		if hit, ok := c.Get(key); ok {
			o := hit.(outcome)
			return o.caller, o.err
		}
	}
	said, err := claimsOf(token)
	if err == nil {
		err = said.hopeless(a.audience, a.now())
	}
	if err != nil {
		a.reviews.WithLabelValues(resultHopeless).Inc()
		return Caller{}, fmt.Errorf("%w: the API server rejects the token: %w", ErrUnauthenticated, err)
	}
	// One review per token at a time. It runs under its own deadline, since other callers wait for the same result.
	flight := a.flights.DoChan(string(key[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
		defer cancel()
		return a.review(ctx, key, token, said, peer)
	})
	select {
	case r := <-flight:
		if r.Err != nil {
			return Caller{}, r.Err
		}
		o := r.Val.(outcome)
		return o.caller, o.err
	case <-ctx.Done():
		return Caller{}, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// review asks the API server and remembers its verdict; an error, as opposed to a verdict, isn't remembered.
func (a *Authenticator) review(
	ctx context.Context, key [sha256.Size]byte, token string, said claims, peer netip.Addr,
) (outcome, error) {
	leave, err := a.limits.Enter(ctx, peer)
	if err != nil {
		a.reviews.WithLabelValues(resultLimited).Inc()
		return outcome{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer leave()
	review := &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{a.audience}},
	}
	if err := a.reviewer.Create(ctx, review); err != nil {
		a.reviews.WithLabelValues(resultFailed).Inc()
		return outcome{}, fmt.Errorf("%w: the API server doesn't review the token: %w", ErrUnavailable, err)
	}
	caller, err := a.verdict(review.Status)
	o := outcome{caller: caller, err: err}
	if err != nil {
		a.reviews.WithLabelValues(resultRejected).Inc()
		a.rejected.Add(key, o, rejectedFor)
		return o, nil
	}
	a.reviews.WithLabelValues(resultAccepted).Inc()
	a.limits.Accepted(peer)
	if ttl := min(acceptedFor, a.remaining(said)); ttl > 0 {
		a.accepted.Add(key, o, ttl)
	}
	return o, nil
}

func (a *Authenticator) verdict(st authenticationv1.TokenReviewStatus) (Caller, error) {
	refuse := func(format string, args ...any) (Caller, error) {
		return Caller{}, fmt.Errorf("%w: %s", ErrUnauthenticated, fmt.Sprintf(format, args...))
	}
	if !st.Authenticated {
		return refuse("the API server rejects the token: expired, revoked, of a deleted pod, or without audience %q",
			a.audience)
	}
	// An authenticator that knows no audiences leaves the list empty; the token is then valid for the API server only.
	if !contains(st.Audiences, a.audience) {
		return refuse("the token isn't for audience %q", a.audience)
	}
	ns, sa, ok := strings.Cut(strings.TrimPrefix(st.User.Username, userPrefix), ":")
	if !ok || !strings.HasPrefix(st.User.Username, userPrefix) || ns == "" || sa == "" {
		return refuse("the token isn't that of a service account")
	}
	c := Caller{
		Namespace: ns, ServiceAccount: sa,
		PodName:  single(st.User.Extra[extraPodName]),
		PodUID:   single(st.User.Extra[extraPodUID]),
		NodeName: single(st.User.Extra[extraNodeName]),
	}
	if c.PodName == "" || c.PodUID == "" || c.NodeName == "" {
		return refuse("%s", errNotBound)
	}
	return c, nil
}

// remaining is the rest of a reviewed token's life, so that the cache doesn't outlive it. The claim needs no
// verification here: the API server has just vouched for the token.
func (a *Authenticator) remaining(c claims) time.Duration {
	if c.Expires == 0 {
		return acceptedFor
	}
	return time.Unix(c.Expires, 0).Sub(a.now())
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func single(v []string) string {
	if len(v) != 1 {
		return ""
	}
	return v[0]
}
