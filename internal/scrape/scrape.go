// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package scrape serves metrics over TLS to those whom the cluster lets read them, as kubelet does: the bearer token is
// reviewed by the API server, and its owner must have the right to get the path (a nonResourceURL of RBAC).
package scrape

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"

	"github.com/fairway-mesh/fairway/internal/accept"
)

const (
	// maxTokenBytes bounds a token before it is hashed or sent on.
	maxTokenBytes = 16 << 10
	// grantedFor is how long a right that was taken away may still be used; refusedFor spares the API server a flood.
	grantedFor    = time.Minute
	refusedFor    = 10 * time.Second
	verdicts      = 256
	reviewTimeout = 5 * time.Second
)

// share is enough for some collectors of metrics, each of which costs a review in a minute.
var share = accept.Share{PeerPerSecond: 1, PeerBurst: 10, PerSecond: 5, Burst: 20, AtOnce: 2}

// Guard lets those pass who may read what they ask for.
type Guard struct {
	tokens           authenticationclient.TokenReviewInterface
	rights           authorizationclient.SubjectAccessReviewInterface
	limits           *accept.Reviews
	granted, refused *cache.LRUExpireCache
	log              logr.Logger
}

// NewGuard asks the API server that a configuration reaches.
func NewGuard(cfg *rest.Config, log logr.Logger) (*Guard, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1 // limited here
	tokens, err := authenticationclient.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("client for token reviews: %w", err)
	}
	rights, err := authorizationclient.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("client for access reviews: %w", err)
	}
	return &Guard{
		tokens: tokens.TokenReviews(), rights: rights.SubjectAccessReviews(), limits: accept.NewReviews(share),
		granted: cache.NewLRUExpireCache(verdicts), refused: cache.NewLRUExpireCache(verdicts), log: log,
	}, nil
}

// refusal is a verdict that is no.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return r.text }

// Protect lets only those through who may get the path.
func (g *Guard) Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := g.check(r)
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		no := &refusal{
			code: http.StatusServiceUnavailable,
			text: "the right to read this can't be checked now; ask again later",
		}
		switch {
		case errors.As(err, &no):
		case errors.Is(err, accept.ErrTooMany):
			no = &refusal{http.StatusTooManyRequests, err.Error()}
		default:
			g.log.Info("a right to read can't be reviewed", "reason", err.Error())
		}
		if no.code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		http.Error(w, no.text, no.code)
	})
}

// check says why the path may not be read. What is no refusal is no verdict.
func (g *Guard) check(r *http.Request) error {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "bearer") || token == "" || len(token) > maxTokenBytes {
		return &refusal{http.StatusUnauthorized, "send a bearer token of the cluster, such as a service account's"}
	}
	// No token has a space, and no two pairs are written alike.
	key := sha256.Sum256([]byte(token + " " + r.Method + " " + r.URL.Path))
	if _, ok := g.granted.Get(key); ok {
		return nil
	}
	if no, ok := g.refused.Get(key); ok {
		return no.(*refusal)
	}
	ctx, cancel := context.WithTimeout(r.Context(), reviewTimeout)
	defer cancel()
	peer := accept.Address(r.RemoteAddr)
	leave, err := g.limits.Enter(ctx, peer)
	if err != nil {
		return err
	}
	defer leave()
	err = g.review(ctx, token, r.Method, r.URL.Path)
	switch no := (*refusal)(nil); {
	case err == nil:
		g.limits.Accepted(peer)
		g.granted.Add(key, struct{}{}, grantedFor)
	case errors.As(err, &no):
		g.refused.Add(key, no, refusedFor)
	}
	return err
}

func (g *Guard) review(ctx context.Context, token, method, path string) error {
	who, err := g.tokens.Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}},
		metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if !who.Status.Authenticated {
		return &refusal{http.StatusUnauthorized, "the API server rejects the token"}
	}
	user := who.Status.User
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for k, v := range user.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	may, err := g.rights.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: strings.ToLower(method)},
	}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if !may.Status.Allowed {
		return &refusal{http.StatusForbidden, fmt.Sprintf(
			"%s may not %s %s: bind the ClusterRole fairway-metrics to it", user.Username, strings.ToLower(method), path)}
	}
	return nil
}
