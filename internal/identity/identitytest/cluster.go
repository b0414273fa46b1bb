// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package identitytest is a stand-in for the API server's token review and for the operator's caches, for tests of what
// authenticates and authorizes.
package identitytest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Cluster reviews tokens that it issued, and knows pods. It is safe for concurrent use.
type Cluster struct {
	now func() time.Time

	mu      sync.Mutex
	tokens  map[string]token
	pods    map[string]auth.Pod
	reviews int
	down    bool
}

type token struct {
	caller    auth.Caller
	audiences []string
	expires   time.Time
}

// NewCluster makes an empty cluster. now may be nil.
func NewCluster(now func() time.Time) *Cluster {
	if now == nil {
		now = time.Now
	}
	return &Cluster{now: now, tokens: map[string]token{}, pods: map[string]auth.Pod{}}
}

// Token issues a token that expires after life; without audiences it is one for names.TokenAudience.
func (c *Cluster) Token(caller auth.Caller, life time.Duration, audiences ...string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(audiences) == 0 {
		audiences = []string{names.TokenAudience}
	}
	expires := c.now().Add(life)
	payload, err := json.Marshal(map[string]any{
		"exp": expires.Unix(), "aud": audiences, "sub": user(caller).Username,
		"kubernetes.io": map[string]any{
			"pod":  map[string]string{"name": caller.PodName, "uid": caller.PodUID},
			"node": map[string]string{"name": caller.NodeName},
		},
	})
	if err != nil {
		panic(err)
	}
	t := fmt.Sprintf("e30.%s.sig%d", base64.RawURLEncoding.EncodeToString(payload), len(c.tokens))
	c.tokens[t] = token{caller: caller, audiences: audiences, expires: expires}
	return t
}

// Revoke makes the API server reject a token, as when its pod is deleted.
func (c *Cluster) Revoke(t string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tokens, t)
}

// SetDown makes reviews fail.
func (c *Cluster) SetDown(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

// Reviews counts the reviews so far.
func (c *Cluster) Reviews() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reviews
}

// Run puts a pod into the cluster.
func (c *Cluster) Run(p auth.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods[p.Namespace+"/"+p.Name] = p
}

// Pod implements auth.Pods.
func (c *Cluster) Pod(namespace, name string) (auth.Pod, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.pods[namespace+"/"+name]
	return p, ok
}

// RunsOn implements auth.Workloads; every pod counts as enrolled.
func (c *Cluster) RunsOn(node, namespace, serviceAccount string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pods {
		if p.Node == node && p.Namespace == namespace && p.ServiceAccount == serviceAccount && !p.Terminated {
			return true
		}
	}
	return false
}

// Waypoint is auth.Authorizer.Waypoint; every pod counts as made for its Gateway.
func (c *Cluster) Waypoint(auth.Pod, string) error { return nil }

// Create implements auth.Reviewer as the API server does.
func (c *Cluster) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	review, ok := o.(*authenticationv1.TokenReview)
	if !ok {
		return fmt.Errorf("not a TokenReview: %T", o)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reviews++
	if c.down {
		return errors.New("connection refused")
	}
	t, ok := c.tokens[review.Spec.Token]
	if !ok || !c.now().Before(t.expires) {
		review.Status.Error = "invalid bearer token"
		return nil
	}
	var common []string
	for _, a := range t.audiences {
		for _, want := range review.Spec.Audiences {
			if a == want {
				common = append(common, a)
			}
		}
	}
	if len(common) == 0 {
		return nil
	}
	review.Status.Authenticated = true
	review.Status.Audiences = common
	review.Status.User = user(t.caller)
	return nil
}

func user(c auth.Caller) authenticationv1.UserInfo {
	u := authenticationv1.UserInfo{Username: c.ServiceAccount, Extra: map[string]authenticationv1.ExtraValue{}}
	if !strings.HasPrefix(c.ServiceAccount, "user:") {
		u.Username = "system:serviceaccount:" + c.Namespace + ":" + c.ServiceAccount
	}
	for key, v := range map[string]string{"pod-name": c.PodName, "pod-uid": c.PodUID, "node-name": c.NodeName} {
		if v != "" {
			u.Extra["authentication.kubernetes.io/"+key] = authenticationv1.ExtraValue{v}
		}
	}
	return u
}

// NodeAgent is the agent of a node.
func NodeAgent(node string) auth.Caller {
	return auth.Caller{
		Namespace: names.SystemNamespace, ServiceAccount: names.NodeServiceAccount,
		PodName: "fairway-node-" + node, PodUID: "uid-agent-" + node, NodeName: node,
	}
}
