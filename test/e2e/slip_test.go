// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// slipTries, as in go test -run TestNothingSlipsThrough ./test/e2e -args -slip-tries=10000.
var slipTries = flag.Int("slip-tries", 0,
	"do each thing again until so many forbidden requests were sent meanwhile; without, each is done once")

// TestNothingSlipsThrough asks for what three policies forbid, as fast as it goes and by every way around, while all
// that enforces them is killed, replaced or changed. Once they are enforced, nobody gets through.
func TestNothingSlipsThrough(t *testing.T) {
	s, plain := enrolled(t), newSpace(t)
	s.server("app")
	s.server("web")
	s.client("friend")
	s.client("stranger")
	plain.client("outsider")
	s.service("app", "app")
	s.service("web", "web")
	s.server("shop")
	s.service("shop", "shop")
	s.authorizer("authorizer")
	s.captured("app", "web", "shop", "authorizer", "friend", "stranger")

	guard := policyFor(networkAllow) // of app, for friend
	requests := policyFor(requestAllow)
	requests.Spec.TargetRefs[0].Name = "web"
	s.create(guard)
	s.create(requests)
	asked := &v1alpha1.AuthenticationPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "asked"},
		Spec:       byAuthorizer("shop", "authorizer", v1alpha1.ExternalAuthorizationByGRPC),
	}
	s.create(asked)
	holds := func() {
		t.Helper()
		for _, p := range []client.Object{guard, requests, asked} {
			s.enforced(p)
		}
		s.answers("friend", "http://app/", "app")
		s.answers("friend", "http://web"+pathGood, "web")
		s.answers("friend", "http://shop"+pathGood, "shop")
	}
	holds()

	gateway := client.ObjectKey{Namespace: s.name, Name: names.AutomaticWaypoint}
	node := s.pod("app").Spec.NodeName
	forbidden, sum := s.forbidden(plain), 0
	for _, d := range []struct {
		what string
		do   func()
	}{
		{"operators killed", func() { replaced(t, names.SystemNamespace, names.ComponentOperator, nil) }},
		{"node proxy and agent killed", func() {
			replaced(t, names.SystemNamespace, names.ComponentNode,
				func(p *corev1.Pod) bool { return p.Spec.NodeName == node }, client.GracePeriodSeconds(1))
			s.captured("app", "web", "shop", "authorizer", "friend", "stranger")
		}},
		{"waypoint killed", func() {
			replaced(t, s.name, names.ComponentWaypoint, nil, client.GracePeriodSeconds(1))
		}},
		{"waypoint rolled", func() {
			rollOut(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: gateway.Namespace, Name: gateway.Name}})
			s.ready(gateway.Name)
		}},
		{"authorization service killed", func() {
			pod := s.pod("authorizer")
			require.NoError(t, world.client.Delete(t.Context(), &pod, client.GracePeriodSeconds(0)))
			eventually.Passes(t, "another one", func(look require.TestingT) {
				now := s.pods("authorizer")
				require.Len(look, now, 1)
				require.NotEqual(look, pod.UID, now[0].UID)
				require.True(look, podReady(&now[0]))
			})
		}},
		{"policies edited 100 times", func() { s.edited(50, guard, requests) }},
		{"Gateway deleted and made again", func() {
			require.NoError(t, world.client.Delete(t.Context(), &gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{
				Namespace: gateway.Namespace, Name: gateway.Name,
			}}))
			eventually.PassesWithin(t, time.Minute, "the waypoint is made again", func(look require.TestingT) {
				var g gwv1.Gateway
				require.NoError(look, world.client.Get(t.Context(), gateway, &g))
				require.Zero(look, g.DeletionTimestamp)
				require.True(look, meta.IsStatusConditionTrue(g.Status.Conditions, v1alpha1.GatewayConditionEstablished))
			})
		}},
	} {
		of := 0
		for of == 0 || of < *slipTries {
			of += s.flooded(d.what, forbidden, d.do)
			holds()
		}
		t.Logf("%s: 0 of %d got through", d.what, of)
		sum += of
	}
	require.Greater(t, sum, 10_000)
}

// flooded asks by all ways at once while something is done, and tells how often; nobody may get through.
func (s *space) flooded(what string, ways map[string]way, do func()) (asked int) {
	s.t.Helper()
	floods := map[string]*traffic{}
	for name, w := range ways {
		flags := []string{"-n", "200", "-c", "8", "--interval", "0s", "--timeout", "3s"}
		floods[name] = w.space.steady(w.from, w.url, append(flags, w.flags...)...)
	}
	do()
	for name, f := range floods {
		for kind, n := range f.end() {
			asked += n
			require.False(s.t, strings.HasPrefix(kind, "200 "), "%s: %d of %s got through: %s", what, n, name, kind)
		}
	}
	return asked
}

// way around a policy.
type way struct {
	space     *space
	from, url string
	// flags of `tool get`, further ones.
	flags []string
}

func (s *space) forbidden(plain *space) map[string]way {
	app, web, shop := s.pod("app").Status.PodIP, s.pod("web").Status.PodIP, s.pod("shop").Status.PodIP
	return map[string]way{
		"a stranger, by the Service":            {s, "stranger", "http://app/", nil},
		"a stranger, by the pod":                {s, "stranger", "http://" + app + ":8080/", nil},
		"a stranger, by the waypoint":           {s, "stranger", "http://web" + pathGood, nil},
		"a friend, by the waypoint":             {s, "friend", "http://web" + pathBad, nil},
		"a friend, around the waypoint":         {s, "friend", "http://" + web + ":8080" + pathGood, nil},
		"somebody outside, by the Service":      {plain, "outsider", "http://" + s.host("app") + "/", nil},
		"a friend, by the service's no":         {s, "friend", "http://shop" + pathBad, nil},
		"a friend, around the service":          {s, "friend", "http://" + shop + ":8080" + pathGood, nil},
		"somebody outside, around the waypoint": {plain, "outsider", "http://" + web + ":8080" + pathGood, nil},
	}
}

// enforced waits until a policy is.
func (s *space) enforced(p client.Object) {
	s.t.Helper()
	what := "policy " + p.GetName() + " is enforced"
	s.enforcement(p, 2*time.Minute, what, func(look require.TestingT, c *metav1.Condition) {
		require.Equal(look, metav1.ConditionTrue, c.Status, "%s: %s", c.Reason, c.Message)
	})
}

// edited changes policies so many times, each by one more source that nobody has.
func (s *space) edited(times int, policies ...*v1alpha1.AuthorizationPolicy) {
	s.t.Helper()
	for n := range times {
		for _, p := range policies {
			require.NoError(s.t, world.client.Get(s.t.Context(), client.ObjectKeyFromObject(p), p))
			patch := client.MergeFrom(p.DeepCopy())
			p.Spec.Rules[0].Sources = append(p.Spec.Rules[0].Sources[:1], v1alpha1.AuthorizationSource{
				Type:           v1alpha1.AuthorizationSourceTypeServiceAccount,
				ServiceAccount: &v1alpha1.AuthorizationServiceAccount{Name: fmt.Sprint("nobody-", n)},
			})
			require.NoError(s.t, world.client.Patch(s.t.Context(), p, patch))
		}
	}
}
