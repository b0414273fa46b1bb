// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestRefusedRanges: what a Mesh says is private no more is not refused, but for what is the cluster's own; and nothing
// that a Mesh says opens this machine, this link, or addresses that stand for others.
func TestRefusedRanges(t *testing.T) {
	all := prefixes([]string{"0.0.0.0/0", "::/0"})
	own := prefixes([]string{"10.244.0.0/16", "203.0.113.7/32", "2001:db8:1::/64"})
	for name, c := range map[string]struct {
		allowed []netip.Prefix
		refused map[string]bool
	}{
		"nothing allowed": {nil, map[string]bool{
			"10.1.2.3": true, "172.16.0.1": true, "172.32.0.1": false, "192.168.1.1": true, "100.64.0.1": true, "fd12::1": true,
			"8.8.8.8": false, "2606:4700::1111": false,
		}},
		"some private": {prefixes([]string{"10.20.0.0/16"}), map[string]bool{
			"10.20.1.1": false, "10.21.1.1": true, "10.244.1.1": true,
		}},
		"everything": {all, map[string]bool{
			"10.20.1.1": false, "10.244.1.1": true, "203.0.113.7": true, "203.0.113.8": false, "2001:db8:1::1": true,
			"127.0.0.1": true, "127.1.2.3": true, "0.0.0.0": true, "169.254.169.254": true, "fd00:ec2::254": true,
			"168.63.129.16": true, "168.63.129.17": false, "100.100.100.200": true,
			"fd20:ce::254": true, "fd00:c1::a9fe:a9fe": true, "fd00:42::42": true, "fd00:a9fe:a9fe::1": true,
			"fd00:100::100:200": true, "fd00:42::43": false, "::ffff:0:10.0.0.1": true,
			"::1": true, "fe80::1": true, "::ffff:10.0.0.1": true, "64:ff9b::a00:1": true, "2002:a00:1::": true,
			"224.0.0.1": true, "255.255.255.255": true, "ff02::1": true,
		}},
	} {
		ranges := RefusedRanges(own, c.allowed)
		for address, want := range c.refused {
			require.Equal(t, want, contains(ranges, netip.MustParseAddr(address)), "%s, %s", name, address)
		}
	}
}

func TestNotAHost(t *testing.T) {
	for host, ok := range map[string]bool{
		"api.stripe.example": true, "xn--bcher-kva.example": true, "1.2.3.4.example": true, "a.b0x": true, "4.face": true,
		"cluster.local.example": true, "notcluster.local": true,
		"stripe": false, "localhost": false, "a.localhost": false, "1.2.3.4": false, "0x7f.1": false, "127.0x1": false,
		"a.0x":          false,
		"cluster.local": false, "web.shop.svc.cluster.local": false,
	} {
		require.Equal(t, ok, notAHost(host) == "", host)
	}
}

// TestXBackendsOfALaterRelease: Gateway API 1.7 has the port in another field. What the mesh reads then has none, and
// requests are answered, with the reason in the status, instead of being sent to port 0.
func TestXBackendsOfALaterRelease(t *testing.T) {
	w := newWorld()
	later := &gwxv1alpha1.XBackend{}
	require.NoError(t, yaml.Unmarshal([]byte(`
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {namespace: shop, name: stripe}
spec:
  type: ExternalHostname
  externalHostname: {hostname: api.stripe.example}
  port: {number: 443}
  tls: {mode: None}
`), later))
	w.set(t, later)
	out := w.in.External.Get(nil, client.ObjectKeyFromObject(later))
	require.NotNil(t, out.refused)
	require.Equal(t, "UnsupportedValue", out.refused.Reason)
	require.Contains(t, out.refused.Message, "spec.port.port is missing")
}

// TestSessionsOfALaterRelease: what Gateway API 1.7 has in fields of its own is not read, as docs/install.md says it.
func TestSessionsOfALaterRelease(t *testing.T) {
	read := func(spec string) (*model.SessionPersistence, error) {
		var in gwv1.SessionPersistence
		require.NoError(t, yaml.Unmarshal([]byte(spec), &in))
		return sessionPersistence(&in)
	}
	for spec, want := range map[string]model.SessionPersistence{
		"{type: Cookie, cookie: {name: mine, path: /}}": {},
		"{type: Header, header: {name: x-mine}}":        {Header: true},
	} {
		got, err := read(spec)
		require.NoError(t, err)
		require.Equal(t, &want, got, spec)
	}
	_, err := read("{type: Cookie, cookie: {lifetimeType: Permanent}, absoluteTimeout: 1h}")
	require.ErrorContains(t, err, "absoluteTimeout requires cookieConfig.lifetimeType Permanent")
}

// TestExternalsHaveABudget: a namespace's routes lead to so many hosts outside and no more, the oldest ones, and one
// more takes nothing from those that work.
func TestExternalsHaveABudget(t *testing.T) {
	w := newWorld()
	w.set(t, readManifests(t, "testdata/mesh.yaml")...)
	w.set(t, &corev1.Service{
		TypeMeta:   metav1.TypeMeta{Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "payments"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80}},
		},
	})
	const wanted = MostExternalsOfNamespace + 10
	var routes, backends []client.Object
	for n := range wanted {
		name := fmt.Sprintf("host-%04d", n)
		backends = append(backends, &gwxv1alpha1.XBackend{
			TypeMeta: metav1.TypeMeta{Kind: cluster.KindXBackend},
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: name, CreationTimestamp: metav1.Unix(int64(wanted-n), 0), // the last is the oldest
			},
			Spec: gwxv1alpha1.BackendSpec{
				Type: gwxv1alpha1.BackendTypeExternalHostname, Port: gwxv1alpha1.BackendPort{Port: 80},
				ExternalHostname: &gwxv1alpha1.ExternalHostnameBackend{Hostname: gwv1.PreciseHostname(name + ".example")},
			},
		})
		if n%16 == 0 {
			routes = append(routes, &gwv1.HTTPRoute{
				TypeMeta:   metav1.TypeMeta{Kind: KindHTTPRoute},
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("r", n), CreationTimestamp: metav1.Unix(1, 0)},
			})
			r := routes[len(routes)-1].(*gwv1.HTTPRoute)
			r.Spec.ParentRefs = []gwv1.ParentReference{{
				Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Name: "payments",
			}}
		}
		r := routes[len(routes)-1].(*gwv1.HTTPRoute)
		r.Spec.Rules = append(r.Spec.Rules, gwv1.HTTPRouteRule{
			Matches: []gwv1.HTTPRouteMatch{{Path: &gwv1.HTTPPathMatch{Value: new("/" + name)}}},
			BackendRefs: []gwv1.HTTPBackendRef{{BackendRef: gwv1.BackendRef{BackendObjectReference: gwv1.BackendObjectReference{
				Group: new(gwv1.Group(gwxv1alpha1.GroupName)), Kind: new(gwv1.Kind(cluster.KindXBackend)),
				Name: gwv1.ObjectName(name),
			}}}},
		})
	}
	w.set(t, backends...)
	began := time.Now()
	w.set(t, routes...)
	waypoint := &gwv1.Gateway{
		TypeMeta:   metav1.TypeMeta{Kind: "Gateway"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "fairway-waypoint"},
		Spec:       gwv1.GatewaySpec{GatewayClassName: "fairway-waypoint"},
	}
	w.set(t, waypoint)
	has := w.in.Waypoint.Get(nil, client.ObjectKeyFromObject(waypoint)).Externals
	require.Len(t, has, MostExternalsOfNamespace)
	require.Equal(t, "host-0010", has[0].Name)
	t.Log("decided in", time.Since(began))

	ref := model.ObjectRef{Kind: cluster.KindXBackend, Namespace: "shop", Name: "host-0000"}
	report := w.in.Report.Get(nil, ref)
	require.Len(t, report.Parents, 1)
	accepted := meta.FindStatusCondition(report.Parents[0].Conditions, "Accepted")
	require.Equal(t, "OverBudget", accepted.Reason)
	require.Equal(t, "OverBudget", w.in.Route.Get(nil, model.ObjectRef{
		Kind: KindHTTPRoute, Namespace: "shop", Name: "r0",
	}).resolved.Reason)
}
