// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
)

// asker is who asks, and where.
type asker struct {
	space *space
	app   string
	// urls by address; flags of `tool probe`.
	urls  map[string]string
	flags []string
}

// matrix is a guarded application and all who may ask for it.
type matrix struct {
	*space
	askers map[string]asker
	// tokens that requests carry, by what they are called in the table.
	tokens map[string]string
	// authentication is what each of its policies asks for.
	authentication map[string]v1alpha1.AuthenticationPolicySpec
}

// TestWhoMayComeIn asks the application from everywhere, by every address, under every policy, in both modes and in
// each state of its waypoint, and compares with the table of verdicts. What is closed must be closed as soon as the
// policy's status says so; what is open may take a moment.
func TestWhoMayComeIn(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	asked, wrong := 0, []string{}
	for _, strict := range []bool{false, true} {
		mode := names.MTLSPermissive
		if strict {
			mode = names.MTLSStrict
		}
		m.label(names.LabelMTLSMode, mode)
		for _, waypoint := range []string{waypointNone, waypointReady, waypointReplaced, waypointUnready, waypointDeleted} {
			m.waypoint(waypoint)
			for _, policy := range []string{
				noPolicy, networkAllow, requestAllow, requestDeny, networkDeny, tokenRequired, defaultDeny, serviceAsked, dryRun,
			} {
				start := time.Now()
				n, bad := m.state(cell{policy: policy, waypoint: waypoint, strict: strict})
				asked, wrong = asked+n, append(wrong, bad...)
				t.Logf("strict %t, waypoint %s, policy %s: %d cells, %d wrong (%.1f s)",
					strict, waypoint, policy, n, len(bad), time.Since(start).Seconds())
				slices.Sort(bad)
				for _, b := range bad[:min(len(bad), 12)] {
					t.Log(b)
				}
			}
		}
	}
	t.Logf("%d cells", asked)
	require.Empty(t, wrong, "%d of %d cells", len(wrong), asked)
}

// state asks all cells of one state.
func (m *matrix) state(c cell) (asked int, wrong []string) {
	m.t.Helper()
	if p := m.policy(c.policy); p != nil {
		m.create(p)
		m.decided(p)
		defer func() { require.NoError(m.t, world.client.Delete(m.t.Context(), p)) }()
	}
	if c.waypoint == waypointReplaced {
		rollOut(m.t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: m.name, Name: "wp"}})
	}
	// Modes and waypoints have no status that tells when all proxies know: before the first policy of a state, wait.
	patient := c.policy == noPolicy
	deadline := time.Now().Add(30 * time.Second)
	for {
		asked, wrong = m.compare(c)
		closed := strings.Contains(strings.Join(wrong, "\n"), "is open")
		if len(wrong) == 0 || time.Now().After(deadline) || closed && !patient {
			return asked, wrong
		}
	}
}

// compare asks every caller at once.
func (m *matrix) compare(c cell) (asked int, wrong []string) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for name, a := range m.askers {
		c := c
		c.caller = name
		all.Go(func() {
			questions := asks(c.policy)
			got := a.ask(m.t, m.paths(questions))
			mu.Lock()
			defer mu.Unlock()
			for address, url := range a.urls {
				c.address = address
				if !c.asked() {
					continue
				}
				for n, path := range m.paths(questions) {
					asked++
					c.path, c.token = questions[n].path, questions[n].token
					said := got[url+path]
					switch open := strings.HasPrefix(said, "200 "); {
					case open == c.open():
					case open:
						wrong = append(wrong, fmt.Sprintf("%+v is open: %s", c, said))
					default:
						wrong = append(wrong, fmt.Sprintf("%+v is closed: %s", c, said))
					}
				}
			}
		})
	}
	all.Wait()
	return asked, wrong
}

// paths of questions, with their tokens.
func (m *matrix) paths(questions []cell) (out []string) {
	for _, q := range questions {
		if q.token != noToken {
			q.path += "?" + tokenParameter + "=" + m.tokens[q.token]
		}
		out = append(out, q.path)
	}
	return out
}

// ask every URL with all paths, and say what came of each.
func (a asker) ask(t *testing.T, paths []string) map[string]string {
	args := append([]string{"probe", "--timeout=4s"}, a.flags...)
	for _, url := range a.urls {
		for _, path := range paths {
			args = append(args, url+path)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	out, err := a.space.exec(ctx, a.app, args...)
	got := map[string]string{}
	for line := range strings.Lines(out) {
		url, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[url] = kind
	}
	if err != nil {
		t.Errorf("%s: %v: %s", a.app, err, out)
	}
	return got
}

// policy makes one of the table, if it has any of that name.
func (m *matrix) policy(name string) client.Object {
	if spec, ok := m.authentication[name]; ok {
		return &v1alpha1.AuthenticationPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: strings.ReplaceAll(name, " ", "-")}, Spec: spec,
		}
	}
	if p := policyFor(name); p != nil {
		return p
	}
	return nil
}

// policyFor makes an AuthorizationPolicy of the table.
func policyFor(name string) *v1alpha1.AuthorizationPolicy {
	source := func(account string) []v1alpha1.AuthorizationSource {
		return []v1alpha1.AuthorizationSource{{
			Type:           v1alpha1.AuthorizationSourceTypeServiceAccount,
			ServiceAccount: &v1alpha1.AuthorizationServiceAccount{Name: account},
		}}
	}
	of := func(app string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	}
	below := func(path string) *v1alpha1.AuthorizationApplicationAttributes {
		return &v1alpha1.AuthorizationApplicationAttributes{
			Type:  v1alpha1.AuthorizationAttributesInline,
			Paths: []v1alpha1.AuthorizationPath{{Type: v1alpha1.AuthorizationMatchPrefix, Value: path}},
		}
	}
	p := &v1alpha1.AuthorizationPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: strings.ReplaceAll(strings.ToLower(name), " ", "-")},
		Spec: v1alpha1.AuthorizationPolicySpec{
			TargetRefs:       []v1alpha1.AuthorizationTarget{{Kind: "Pod", Selector: of("app")}},
			EnforcementLevel: v1alpha1.EnforcementLevelNetwork, Action: v1alpha1.ActionAllow,
			Rules: []v1alpha1.AuthorizationRule{{Sources: source("friend")}},
		},
	}
	switch name {
	case networkAllow:
	case dryRun:
		p.Spec.DryRun = true
	case networkDeny:
		p.Spec.Action, p.Spec.Rules[0].Sources = v1alpha1.ActionDeny, source("stranger")
	case defaultDeny:
		p.Spec.TargetRefs[0].Selector, p.Spec.Rules = &metav1.LabelSelector{}, nil
	case requestAllow, requestDeny:
		p.Spec.TargetRefs = []v1alpha1.AuthorizationTarget{{Kind: "Service", Name: "app"}}
		p.Spec.EnforcementLevel = v1alpha1.EnforcementLevelApplication
		p.Spec.Rules[0].ApplicationAttributes = below(pathGood)
		if name == requestDeny {
			p.Spec.Action = v1alpha1.ActionDeny
			p.Spec.Rules = []v1alpha1.AuthorizationRule{{ApplicationAttributes: below(pathBad)}}
		}
	default:
		return nil
	}
	return p
}

// decided waits until the status says what became of a policy: that it is enforced, or why it can't be.
func (s *space) decided(p client.Object) {
	s.t.Helper()
	s.enforcement(p, time.Minute, "the status of policy "+p.GetName(), func(look require.TestingT, c *metav1.Condition) {
		if !strings.Contains(c.Message, "nobody gets in through it") { // a waypoint without proxies may come back
			require.NotEqual(look, v1alpha1.PolicyReasonPending, c.Reason, c.Message)
		}
	})
}

// enforcement waits until the condition Enforced of a policy is about what it is now, and passes, for all ancestors.
func (s *space) enforcement(p client.Object, within time.Duration, what string,
	pass func(require.TestingT, *metav1.Condition),
) {
	s.t.Helper()
	s.policySays(p, v1alpha1.PolicyConditionEnforced, within, what, pass)
}

// policySays is the same of any condition and any kind of policies.
func (s *space) policySays(p client.Object, condition string, within time.Duration, what string,
	pass func(require.TestingT, *metav1.Condition),
) {
	s.t.Helper()
	eventually.PassesWithin(s.t, within, what, func(look require.TestingT) {
		now := p.DeepCopyObject().(client.Object)
		require.NoError(look, world.client.Get(s.t.Context(), client.ObjectKeyFromObject(p), now))
		policy, ok := cluster.PolicyOf(now)
		require.True(look, ok)
		require.NotEmpty(look, *policy.Ancestors())
		for _, a := range *policy.Ancestors() {
			c := meta.FindStatusCondition(a.Conditions, condition)
			require.NotNil(look, c, "%+v", a.Conditions)
			require.Equal(look, now.GetGeneration(), c.ObservedGeneration)
			pass(look, c)
		}
	})
}

// policyProgrammed waits until the proxies have a policy.
func (s *space) policyProgrammed(p client.Object) {
	s.t.Helper()
	s.policySays(p, v1alpha1.EntryConditionProgrammed, eventually.Patience, "policy "+p.GetName()+" is Programmed",
		func(look require.TestingT, c *metav1.Condition) {
			require.Equal(look, metav1.ConditionTrue, c.Status, "%s: %s", c.Reason, c.Message)
		})
}

// waypoint brings the waypoint of the application into a state.
func (m *matrix) waypoint(state string) {
	m.t.Helper()
	ctx := m.t.Context()
	use := func(waypoint string) {
		for _, name := range []string{"app", "lists"} {
			svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: m.name, Name: name}}
			relabel(m.t, svc, names.LabelUseWaypoint, waypoint)
		}
	}
	wp := client.ObjectKey{Namespace: m.name, Name: "wp"}
	scale := func(n int) {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: wp.Namespace, Name: wp.Name}}
		patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n))
		require.NoError(m.t, world.client.Patch(ctx, d, patch))
	}
	switch state {
	case waypointNone:
		use(names.UseWaypointNone)
	case waypointReady:
		m.gateway(wp.Name)
		eventually.PassesWithin(m.t, time.Minute, "the waypoint serves", func(look require.TestingT) {
			var g gwv1.Gateway
			require.NoError(look, world.client.Get(ctx, wp, &g))
			require.True(look, meta.IsStatusConditionTrue(g.Status.Conditions, v1alpha1.GatewayConditionEstablished))
		})
		use(wp.Name)
		m.routed("friend", "http://app/", "app")
	case waypointUnready:
		m.ready(wp.Name) // the last rollout has ended
		scale(0)
	case waypointDeleted:
		require.NoError(m.t, world.client.Delete(ctx, &gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{
			Namespace: wp.Namespace, Name: wp.Name,
		}}))
	}
}

// newMatrix makes the application and its callers.
func newMatrix(t *testing.T) *matrix {
	t.Helper()
	s, other, plain := enrolled(t), enrolled(t), newSpace(t)
	// Kubelet asks another port, for at that one whatever runs in its node's network passes.
	s.server("app", arguments("serve", "--name=app", "--port=8080", "--port=8081"), spec(func(p *corev1.PodSpec) {
		p.Containers[0].ReadinessProbe.HTTPGet.Port = intstr.FromInt32(8081)
	}))
	node := s.pod("app").Spec.NodeName
	here, there := spec(func(p *corev1.PodSpec) { p.NodeName = node }), elsewhere(t, node)
	asFriend := spec(func(p *corev1.PodSpec) { p.ServiceAccountName = "friend" })
	s.client("friend", here)
	s.client("far", there, asFriend)
	s.client("stranger", here)
	other.client("visitor", there)
	plain.client("outsider", there)
	plain.client("host-here", onHostNetwork(18091), here)
	plain.client("host-there", onHostNetwork(18092), there)

	svc := s.service("app", "app", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer })
	s.service("app-headless", "app", func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone })
	s.captured("app", "friend", "far", "stranger")
	other.captured("visitor")
	eventually.Passes(t, "an address of the LoadBalancer", func(look require.TestingT) {
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKeyFromObject(svc), svc))
		require.NotEmpty(look, svc.Status.LoadBalancer.Ingress, "the cluster gives the Service no LoadBalancer address")
	})
	pod := s.pod("app")
	foreign := other.listing(pod.Status.PodIP, nil)
	stray := s.listing(pod.Status.PodIP, map[string]string{"app": "nobody"})
	urls := map[string]string{
		bySelf: "http://" + svc.Spec.ClusterIP, byPod: "http://" + net.JoinHostPort(pod.Status.PodIP, "8080"),
		byHeadless: "http://" + s.host("app-headless") + ":8080", byForeign: "http://" + foreign,
		byStray: "http://" + stray,
	}
	only := func(address, url string) map[string]string { return map[string]string{address: url} }
	nodePort := fmt.Sprint(svc.Spec.Ports[0].NodePort)
	m := &matrix{space: s, askers: map[string]asker{
		sameNode: {s, "friend", urls, nil}, otherNode: {s, "far", urls, nil}, otherAccount: {s, "stranger", urls, nil},
		otherSpace: {other, "visitor", urls, nil}, outside: {plain, "outsider", urls, nil},
		hostSameNode: {plain, "host-here", urls, nil}, hostOtherNode: {plain, "host-there", urls, nil},
		byNodePort: {plain, "host-there", only(bySelf, "http://"+net.JoinHostPort(pod.Status.HostIP, nodePort)), nil},
		byBalancer: {plain, "host-there", only(bySelf, "http://"+svc.Status.LoadBalancer.Ingress[0].IP), nil},
		tunnel: {
			plain, "outsider", only(byPod, "mtls://"+net.JoinHostPort(pod.Status.PodIP, fmt.Sprint(names.PortMTLS))+"/8080"),
			[]string{"--certificate=" + other.stolen("visitor")},
		},
	}}
	m.authenticate()
	return m
}

// authenticate makes what proves callers: an authorization service, and two issuers of tokens.
func (m *matrix) authenticate() {
	m.t.Helper()
	login, remote := newIssuer(m.t, "https://login.example"), newIssuer(m.t, "https://remote.example")
	m.authorizer("authorizer")
	m.keyServer("keys", remote)
	m.captured("authorizer", "keys")
	m.tokens = map[string]string{
		goodToken: login.token(nil), fetchedToken: remote.token(nil),
		forgedToken: newIssuer(m.t, login.name).token(nil),
	}
	inQuery := func(p *v1alpha1.JWTProvider) { p.FromParams = []string{tokenParameter} }
	m.authentication = map[string]v1alpha1.AuthenticationPolicySpec{
		tokenRequired: byTokens("app", login.provider("login", inQuery), remote.served("remote", "keys", inQuery)),
		serviceAsked:  byAuthorizer("app", "authorizer", v1alpha1.ExternalAuthorizationByGRPC),
	}
}

// listing makes a Service with a slice that leads to a pod which it doesn't choose, and returns its address.
func (s *space) listing(pod string, selector map[string]string) string {
	s.t.Helper()
	svc := s.service("lists", "", func(svc *corev1.Service) {
		svc.Spec.Selector, svc.Spec.Ports[0].TargetPort = selector, intstr.FromInt32(8080)
	})
	name, port := "http", int32(8080)
	s.create(&discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "lists", Labels: map[string]string{discoveryv1.LabelServiceName: "lists"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{pod}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	})
	return svc.Spec.ClusterIP
}

// stolen is a certificate of a Deployment's identity with its key, as whoever takes over its node has it: PEM, in
// base64.
func (s *space) stolen(app string) string {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(s.t, err)
	agent := nodePods(s.t)[s.pod(app).Spec.NodeName]
	code, body := signFor(s.t, operatorTLS(s.t), token(s.t, agent, names.TokenAudience), identityOf(s, app), key)
	require.Equal(s.t, http.StatusOK, code, body)
	var signed identity.SignResponse
	require.NoError(s.t, json.Unmarshal([]byte(body), &signed))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(s.t, err)
	pair := signed.CertificateChain + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return base64.StdEncoding.EncodeToString([]byte(pair))
}
