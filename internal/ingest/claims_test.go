// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// claimWorld is a cluster of two nodes, n1 and n2, with ranges of their own, and a Mesh. Steps are in the order of
// time.
type claimWorld struct {
	t     *testing.T
	store *cluster.Store
	*Ingest
}

func newClaimWorld(t *testing.T) claimWorld {
	g := memo.New()
	w := claimWorld{t: t, store: cluster.NewStore(g)}
	w.Ingest = New(g, w.store, func(model.Rule) (bool, error) { return false, nil })
	w.set(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{
			names.LabelMesh: names.MeshEnabled,
		}}},
		&v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}},
	)
	w.node("n1", "10.1.0.0/24")
	w.node("n2", "10.2.0.0/24")
	return w
}

func (w claimWorld) set(objs ...client.Object) {
	for _, o := range objs {
		require.NoError(w.t, w.store.Set(o))
	}
}

func (w claimWorld) node(name string, ranges ...string) {
	w.set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: ranges}})
}

// anywhere lets pods have any address: the network plugin hands them out by itself.
func (w claimWorld) anywhere() {
	w.set(&v1alpha1.Mesh{
		ObjectMeta: metav1.ObjectMeta{Name: names.Mesh, Generation: 2},
		Spec:       v1alpha1.MeshSpec{Network: &v1alpha1.Network{PodCIDRs: []v1alpha1.CIDR{"10.0.0.0/8"}}},
	})
}

type change func(*corev1.Pod)

func captured(p *corev1.Pod) {
	p.Status.Conditions = []corev1.PodCondition{{Type: v1alpha1.PodConditionCaptured, Status: corev1.ConditionTrue}}
}

func aged(minutes int) change {
	return func(p *corev1.Pod) {
		p.CreationTimestamp = metav1.NewTime(time.Unix(0, 0).Add(-time.Duration(minutes) * time.Minute))
	}
}

func (w claimWorld) pod(name, node, ip string, changes ...change) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID(name),
			CreationTimestamp: metav1.NewTime(time.Unix(0, 0)),
		},
		Spec:   corev1.PodSpec{NodeName: node, ServiceAccountName: name},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: ip}}},
	}
	for _, c := range changes {
		c(p)
	}
	w.set(p)
	return p
}

// has is what callers do with connections to an address: what to expect of them, and who is refused.
func (w claimWorld) has(ip, want string, refused ...string) {
	w.t.Helper()
	addr := netip.MustParseAddr(ip)
	d := w.Destination.Get(nil, netip.AddrPortFrom(addr, 80))
	have := string(d.Kind)
	if d.Kind == model.DestinationWorkload {
		_, _, have, _ = names.ParseSPIFFEID(d.Identities[0])
	}
	require.Equal(w.t, want, have)
	var pods []string
	for _, r := range w.Claims.Get(nil, addr).Refused {
		pods = append(pods, r.Pod.Name)
		require.NotEmpty(w.t, r.Why)
	}
	require.Equal(w.t, refused, pods)
}

const (
	plain  = string(model.DestinationPassthrough)
	closed = string(model.DestinationRefused)
)

func TestANodeCantTakeAnothersAddress(t *testing.T) {
	for name, c := range map[string]func(w claimWorld){
		"outside of its ranges, in plaintext": func(w claimWorld) {
			w.pod("victim", "n1", "10.1.0.5", captured)
			w.pod("thief", "n2", "10.1.0.5")
			w.has("10.1.0.5", "victim", "thief")
		},
		"outside of its ranges, older and captured": func(w claimWorld) {
			w.pod("thief", "n2", "10.1.0.5", captured, aged(60))
			w.has("10.1.0.5", closed, "thief")
			w.pod("victim", "n1", "10.1.0.5", captured)
			w.has("10.1.0.5", "victim", "thief")
		},
		"before the victim is captured": func(w claimWorld) {
			w.pod("thief", "n2", "10.1.0.5", captured, aged(60))
			w.pod("victim", "n1", "10.1.0.5")
			w.has("10.1.0.5", plain, "thief")
		},
		"not one of a pod": func(w claimWorld) {
			w.pod("thief", "n2", "172.30.0.11", captured)
			w.has("172.30.0.11", plain, "thief")
		},
		"no ranges: the captured claim counts": func(w claimWorld) {
			w.anywhere()
			w.pod("thief", "n2", "10.1.0.5", aged(60))
			w.has("10.1.0.5", plain)
			w.pod("victim", "n1", "10.1.0.5", captured)
			w.has("10.1.0.5", "victim", "thief")
		},
		"no ranges: the older claim counts, not the older pod": func(w claimWorld) {
			w.anywhere()
			w.pod("thief", "n2", "10.2.0.5", captured, aged(60))
			w.pod("victim", "n1", "10.1.0.5", captured)
			w.pod("thief", "n2", "10.1.0.5", captured, aged(60))
			w.has("10.1.0.5", "victim", "thief")
			w.has("10.2.0.5", plain)
		},
		"no ranges: outside of those of the Mesh": func(w claimWorld) {
			w.anywhere()
			w.pod("thief", "n2", "172.30.0.11", captured)
			w.has("172.30.0.11", plain, "thief")
		},
		"ranges of the other family only": func(w claimWorld) {
			w.pod("six", "n1", "fd00::5", captured)
			w.has("fd00::5", "six")
		},
		"a Node made again, with the ranges of others": func(w claimWorld) {
			for _, evil := range [][]string{{"0.0.0.0/0"}, {"10.0.0.0/8"}, {"10.1.0.0/24"}, {"10.1.0.0/28"}, {"fd00::/64"}, {}} {
				w.node("n2")
				w.set(&corev1.Node{
					ObjectMeta: metav1.ObjectMeta{Name: "n2", CreationTimestamp: metav1.NewTime(time.Unix(60, 0))},
					Spec:       corev1.NodeSpec{PodCIDRs: evil},
				})
				w.pod("thief", "n2", "10.1.0.5", captured, aged(60))
				w.has("10.1.0.5", closed, "thief")
				w.pod("outside", "n2", "203.0.113.7", captured)
				w.has("203.0.113.7", plain, "outside")
			}
			w.pod("victim", "n1", "10.1.0.5", captured)
			w.has("10.1.0.5", "victim", "thief")
		},
		"outside of the mesh nobody cares": func(w claimWorld) {
			w.pod("one", "n1", "10.1.0.5")
			w.pod("two", "n2", "10.1.0.5")
			w.has("10.1.0.5", plain)
		},
		"a node's word for its own pods": func(w claimWorld) {
			w.pod("ends", "n1", "10.1.0.5", captured, aged(5))
			w.pod("next", "n1", "10.1.0.5", captured)
			w.has("10.1.0.5", "next")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newClaimWorld(t)
			w.store.Pods.MarkSettled()
			c(w)
		})
	}
}

// An address that becomes free is another pod's at once, on its node and, where the network plugin does so, on another.
func TestAddressesAreUsedAgain(t *testing.T) {
	w := newClaimWorld(t)
	w.store.Pods.MarkSettled()
	w.anywhere()
	first := w.pod("first", "n1", "10.1.0.5", captured, aged(5))
	w.pod("second", "n2", "10.1.0.5", captured)
	w.has("10.1.0.5", "first", "second")
	finished := first.DeepCopy()
	finished.Status.Phase = corev1.PodSucceeded // it keeps its address
	w.set(finished)
	w.has("10.1.0.5", "second")
	w.pod("third", "n1", "10.1.0.5", captured)
	w.has("10.1.0.5", "second", "third")
	require.NoError(t, w.store.Delete(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}))
	w.has("10.1.0.5", "third", "second")
	require.NoError(t, w.store.Delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "second"}}))
	w.has("10.1.0.5", "third")

	host := w.pod("host", "n1", "10.1.0.5", captured, func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	w.has("10.1.0.5", "third")
	require.True(t, host.Spec.HostNetwork)
}

// Claims that were there before the operator have no order: a node can't choose how old its pods are.
func TestClaimsFromBeforeTheStart(t *testing.T) {
	w := newClaimWorld(t)
	w.anywhere()
	w.pod("a-thief", "n2", "10.1.0.5", captured, aged(5))
	w.pod("victim", "n1", "10.1.0.5", captured, aged(60))
	w.store.Pods.MarkSettled()
	w.has("10.1.0.5", "victim", "a-thief")
}

// A claim that is refused gives a Service no endpoint in plaintext, and the thief nothing of the victim's.
func TestRefusedClaimsAreNoEndpoints(t *testing.T) {
	w := newClaimWorld(t)
	w.store.Pods.MarkSettled()
	w.set(
		&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"},
			Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.1"}, Ports: []corev1.ServicePort{
				{Name: "http", Port: 80},
			}},
		},
		&discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart-1", Labels: map[string]string{
				discoveryv1.LabelServiceName: "cart",
			}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.5"}}, {Addresses: []string{"10.2.0.5"}}},
		},
	)
	w.pod("thief", "n2", "10.1.0.5", captured,
		func(p *corev1.Pod) { p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "10.2.0.5"}) })
	port := model.ServicePort{Namespace: "shop", Service: "cart", Port: 80}
	list := w.Endpoints.Get(nil, port)
	require.Len(t, list, 1)
	require.Equal(t, "10.2.0.5:8080", list[0].Address.String())
	w.pod("victim", "n1", "10.1.0.5", captured)
	require.Len(t, w.Endpoints.Get(nil, port), 2)
}

// What a node says of pods makes no Service of the mesh lead elsewhere: the mirrors of static pods, which it makes by
// itself, serve nobody, and a refused claim is no endpoint of the thief's own Service either.
func TestWhatANodeMakesUpIsNoEndpoint(t *testing.T) {
	w := newClaimWorld(t)
	w.store.Pods.MarkSettled()
	mirror := func(p *corev1.Pod) {
		p.Spec.ServiceAccountName, p.Annotations = "", map[string]string{names.AnnotationMirror: "x"}
	}
	host := func(p *corev1.Pod) { p.Spec.HostNetwork = true }
	w.pod("honest", "n1", "10.1.0.5", captured)
	w.pod("plain", "n1", "10.1.0.6")
	w.pod("host", "n1", "172.30.0.11", host)
	w.pod("mirror", "n2", "10.2.0.7", mirror, captured)
	w.pod("mirror-outside", "n2", "203.0.113.7", mirror)
	w.pod("mirror-host", "n2", "203.0.113.8", mirror, host)
	w.pod("mirror-of-victim", "n2", "10.1.0.5", mirror)
	w.pod("thief", "n2", "10.1.0.5", captured)
	w.pod("thief-outside", "n2", "203.0.113.9", captured)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart-1", Labels: map[string]string{
			discoveryv1.LabelServiceName: "cart",
		}},
		Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(80))}},
	}
	for name, ip := range map[string]string{
		"honest": "10.1.0.5", "plain": "10.1.0.6", "host": "172.30.0.11", "mirror": "10.2.0.7",
		"mirror-outside": "203.0.113.7",
		"mirror-host":    "203.0.113.8", "thief-outside": "203.0.113.9", "not-known": "203.0.113.10",
	} {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{ip}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: name},
		})
	}
	byHand := slice.DeepCopy()
	byHand.Name, byHand.Endpoints = "cart-2", []discoveryv1.Endpoint{{Addresses: []string{"203.0.113.11"}}}
	// The victim's address, as the Service of those who claim it has it.
	other := slice.DeepCopy()
	other.Name, other.Labels = "other", map[string]string{discoveryv1.LabelServiceName: "other"}
	other.Endpoints = nil
	for _, name := range []string{"mirror-of-victim", "thief"} {
		other.Endpoints = append(other.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{"10.1.0.5"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: name},
		})
	}
	w.set(slice, byHand, other)
	for _, name := range []string{"cart", "other"} {
		w.set(&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		})
	}
	endpoints := func(service string) (out []string) {
		for _, e := range w.Endpoints.Get(nil, model.ServicePort{Namespace: "shop", Service: service, Port: 80}) {
			out = append(out, e.Address.Addr().String())
		}
		return out
	}
	require.Equal(t, []string{"10.1.0.5", "10.1.0.6", "172.30.0.11", "203.0.113.11"}, endpoints("cart"))
	require.Empty(t, endpoints("other"))

	w.set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	require.Contains(t, endpoints("cart"), "10.2.0.7", "outside of the mesh static pods serve")
}

// A pod without an account is nobody, even if its node says that it is captured.
func TestPodsWithoutAnAccountHaveNoIdentity(t *testing.T) {
	w := newClaimWorld(t)
	w.pod("static", "n1", "10.1.0.5", captured, func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" })
	w.pod("named", "n1", "10.1.0.6", captured,
		func(p *corev1.Pod) { p.Annotations = map[string]string{names.AnnotationMirror: "x"} })
	for _, ip := range []string{"10.1.0.5", "10.1.0.6"} {
		w.has(ip, plain)
		require.Empty(t, w.Workload.Get(nil, netip.MustParseAddr(ip)).Identity)
	}
}
