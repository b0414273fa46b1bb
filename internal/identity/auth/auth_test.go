// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/identity/identitytest"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

type world struct {
	*identitytest.Cluster
	now time.Time
	*auth.Authorizer
}

func newWorld() *world {
	w := &world{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.Cluster = identitytest.NewCluster(func() time.Time { return w.now })
	w.Authorizer = &auth.Authorizer{
		SystemNamespace: names.SystemNamespace, TrustDomain: func() string { return "cluster.local" }, Pods: w.Cluster,
		Workloads: w.Cluster,
		Waypoint:  w.Cluster.Waypoint,
	}
	return w
}

var waypointPod = auth.Pod{
	Namespace: "shop", Name: "wp-1", UID: "u1", Node: "n1", ServiceAccount: "fairway-waypoint",
	Labels: map[string]string{names.LabelGatewayName: "wp"},
}

func callerOf(p auth.Pod) auth.Caller {
	return auth.Caller{
		Namespace: p.Namespace, ServiceAccount: p.ServiceAccount, PodName: p.Name, PodUID: p.UID,
		NodeName: p.Node,
	}
}

func TestCaller(t *testing.T) {
	agent := identitytest.NodeAgent("n1")
	unbound := agent
	unbound.PodName, unbound.PodUID = "", ""
	noNode := agent
	noNode.NodeName = ""
	person := agent
	person.ServiceAccount = "user:jane"
	for _, tc := range []struct {
		name  string
		token func(w *world) string
		want  string
	}{
		{"good", func(w *world) string { return w.Token(agent, time.Hour) }, ""},
		{"none", func(*world) string { return "" }, "no bearer token"},
		{"wrong", func(*world) string { return "nonsense" }, "rejects the token"},
		{"too long", func(*world) string { return strings.Repeat("x", 20<<10) }, "too long"},
		{"expired", func(w *world) string { return w.Token(agent, -time.Second) }, "rejects the token"},
		{
			"other audience", func(w *world) string { return w.Token(agent, time.Hour, "https://kubernetes.default.svc") },
			"audience",
		},
		{"not pod-bound", func(w *world) string { return w.Token(unbound, time.Hour) }, "isn't bound to a pod"},
		{"no node", func(w *world) string { return w.Token(noNode, time.Hour) }, "isn't bound to a pod"},
		{"a person's", func(w *world) string { return w.Token(person, time.Hour) }, "service account"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld()
			a := auth.NewAuthenticator(w.Cluster, func() time.Time { return w.now }, nil)
			token := tc.token(w)
			got, err := a.Caller(t.Context(), token, peer)
			if tc.want == "" {
				require.NoError(t, err)
				assert.Equal(t, agent, got)
				return
			}
			require.ErrorIs(t, err, auth.ErrUnauthenticated)
			assert.ErrorContains(t, err, tc.want)
			if len(token) > 10 {
				assert.NotContains(t, err.Error(), token)
			}
		})
	}
}

func TestVerdictsAreRememberedForAShortTime(t *testing.T) {
	w := newWorld()
	a := auth.NewAuthenticator(w.Cluster, func() time.Time { return w.now }, nil)
	agent := identitytest.NodeAgent("n1")
	ask := func(token string) error {
		_, err := a.Caller(t.Context(), token, peer)
		return err
	}
	token := w.Token(agent, time.Hour)
	for range 5 {
		require.NoError(t, ask(token))
	}
	assert.Equal(t, 1, w.Reviews())
	w.Revoke(token)
	w.now = w.now.Add(59 * time.Second)
	require.NoError(t, ask(token), "still remembered")
	w.now = w.now.Add(2 * time.Second)
	require.ErrorIs(t, ask(token), auth.ErrUnauthenticated)

	n := w.Reviews()
	for range 5 {
		require.Error(t, ask(forged(1)))
	}
	assert.Equal(t, n+1, w.Reviews(), "a wrong token doesn't cost a review each time")

	short := w.Token(agent, 10*time.Second)
	require.NoError(t, ask(short))
	w.now = w.now.Add(11 * time.Second)
	require.ErrorIs(t, ask(short), auth.ErrUnauthenticated, "never remembered past its own end")

	w.SetDown(true)
	other := w.Token(agent, time.Hour)
	require.ErrorIs(t, ask(other), auth.ErrUnavailable)
	w.SetDown(false)
	require.NoError(t, ask(other), "a failed review is no verdict")
}

func TestConcurrentCallersShareOneReview(t *testing.T) {
	w := newWorld()
	a := auth.NewAuthenticator(w.Cluster, nil, nil)
	w.now = time.Now()
	token := w.Token(identitytest.NodeAgent("n1"), time.Hour)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := a.Caller(context.Background(), token, peer)
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, w.Reviews(), 50)
	n := w.Reviews()
	_, err := a.Caller(t.Context(), token, peer)
	require.NoError(t, err)
	assert.Equal(t, n, w.Reviews())
}

func TestScope(t *testing.T) {
	mutate := func(f func(*auth.Pod)) auth.Pod {
		p := waypointPod
		f(&p)
		return p
	}
	for _, tc := range []struct {
		name   string
		pod    auth.Pod
		caller auth.Caller
		scope  xds.Scope
		kind   error
		want   string
	}{
		{"node agent", auth.Pod{}, identitytest.NodeAgent("n7"), "node/n7", nil, ""},
		{"waypoint", waypointPod, callerOf(waypointPod), "waypoint/shop/wp", nil, ""},
		{
			"earlier pod of the same name", mutate(func(p *auth.Pod) { p.UID = "u2" }), callerOf(waypointPod), "",
			auth.ErrForbidden, "earlier pod",
		},
		{
			"other node", mutate(func(p *auth.Pod) { p.Node = "n2" }), callerOf(waypointPod), "", auth.ErrForbidden,
			"doesn't fit",
		},
		{
			"other service account", mutate(func(p *auth.Pod) { p.ServiceAccount = "x" }), callerOf(waypointPod), "",
			auth.ErrForbidden, "doesn't fit",
		},
		{
			"terminated", mutate(func(p *auth.Pod) { p.Terminated = true }), callerOf(waypointPod), "", auth.ErrForbidden,
			"terminated",
		},
		{"any pod", mutate(func(p *auth.Pod) { p.Labels = nil }), callerOf(waypointPod), "", auth.ErrForbidden, "neither"},
		{"unknown pod", auth.Pod{}, callerOf(waypointPod), "", auth.ErrUnavailable, "isn't known"},
		{"agent's account name in another namespace", auth.Pod{}, func() auth.Caller {
			c := identitytest.NodeAgent("n1")
			c.Namespace = "shop"
			return c
		}(), "", auth.ErrUnavailable, "isn't known"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld()
			if tc.pod.Name != "" {
				w.Run(tc.pod)
			}
			g, err := w.Scope(tc.caller)
			if tc.kind == nil {
				require.NoError(t, err)
				assert.Equal(t, tc.scope, g.Scope)
				return
			}
			require.ErrorIs(t, err, tc.kind)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestAPodWithAWaypointsLabelOnlyIsNoWaypoint(t *testing.T) {
	w := newWorld()
	w.Run(waypointPod)
	w.Authorizer.Waypoint = func(pod auth.Pod, gateway string) error {
		require.Equal(t, waypointPod, pod)
		require.Equal(t, "wp", gateway)
		return fmt.Errorf("%w: a stranger", auth.ErrForbidden)
	}
	_, err := w.Scope(callerOf(waypointPod))
	require.ErrorIs(t, err, auth.ErrForbidden)
	require.ErrorContains(t, err, "a stranger")
}

func TestMayHave(t *testing.T) {
	w := newWorld()
	w.Run(waypointPod)
	w.Run(auth.Pod{Namespace: "shop", Name: "cart-1", UID: "c1", Node: "n1", ServiceAccount: "cart"})
	w.Run(auth.Pod{Namespace: "shop", Name: "pay-1", UID: "p1", Node: "n2", ServiceAccount: "pay"})
	w.Run(auth.Pod{Namespace: "shop", Name: "job-1", UID: "j1", Node: "n1", ServiceAccount: "job", Terminated: true})
	w.Run(auth.Pod{
		Namespace: names.SystemNamespace, Name: "operator", UID: "o1", Node: "n1",
		ServiceAccount: names.OperatorServiceAccount,
	})
	node, err := w.Scope(identitytest.NodeAgent("n1"))
	require.NoError(t, err)
	wp, err := w.Scope(callerOf(waypointPod))
	require.NoError(t, err)
	for _, tc := range []struct {
		name  string
		grant auth.Grant
		id    string
		want  error
	}{
		{"pod on the node", node, "spiffe://cluster.local/ns/shop/sa/cart", nil},
		{"pod on another node", node, "spiffe://cluster.local/ns/shop/sa/pay", auth.ErrForbidden},
		{"pod that has ended", node, "spiffe://cluster.local/ns/shop/sa/job", auth.ErrForbidden},
		{"no pod", node, "spiffe://cluster.local/ns/shop/sa/none", auth.ErrForbidden},
		{"the operator's own", node, "spiffe://cluster.local/ns/fairway-system/sa/fairway-operator", auth.ErrForbidden},
		{"other trust domain", node, "spiffe://other/ns/shop/sa/cart", identity.ErrBadRequest},
		{"not SPIFFE", node, "cart", identity.ErrBadRequest},
		{"waypoint itself", wp, "spiffe://cluster.local/ns/shop/sa/fairway-waypoint", nil},
		{"waypoint for a pod beside it", wp, "spiffe://cluster.local/ns/shop/sa/cart", auth.ErrForbidden},
		{"waypoint of another namespace", wp, "spiffe://cluster.local/ns/bank/sa/fairway-waypoint", auth.ErrForbidden},
		{"nobody", auth.Grant{}, "spiffe://cluster.local/ns/shop/sa/cart", auth.ErrForbidden},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := w.MayHave(tc.grant, tc.id)
			if tc.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, tc.want)
		})
	}
	w.TrustDomain = func() string { return "" }
	require.ErrorIs(t, w.MayHave(node, "spiffe://cluster.local/ns/shop/sa/cart"), identity.ErrNotReady)
}
