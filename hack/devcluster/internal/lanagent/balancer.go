// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package lanagent

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// retryAfter is how long the balancer waits before it tries again what failed.
const retryAfter = time.Second

// balancer gives Services of type LoadBalancer an address and a route to a node; kube-proxy does the rest there.
// Every pass looks at all Services: there are few, and a pass over all can't miss one.
type balancer struct {
	client   kubernetes.Interface
	routes   *routes
	factory  informers.SharedInformerFactory
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	changed  chan struct{}
}

func newBalancer(client kubernetes.Interface, r *routes) *balancer {
	f := informers.NewSharedInformerFactory(client, 0)
	b := &balancer{
		client: client, routes: r, factory: f,
		services: f.Core().V1().Services().Lister(),
		slices:   f.Discovery().V1().EndpointSlices().Lister(),
		changed:  make(chan struct{}, 1),
	}
	poke := toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { b.poke() },
		UpdateFunc: func(any, any) { b.poke() },
		DeleteFunc: func(any) { b.poke() },
	}
	for _, i := range []toolscache.SharedIndexInformer{
		f.Core().V1().Services().Informer(),
		f.Discovery().V1().EndpointSlices().Informer(),
	} {
		_, _ = i.AddEventHandler(poke) // fails only for a stopped informer
	}
	return b
}

func (b *balancer) poke() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

func (b *balancer) run(ctx context.Context) error {
	b.factory.Start(ctx.Done())
	b.factory.WaitForCacheSync(ctx.Done())
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.changed:
		}
		if err := b.pass(ctx); err != nil {
			log.Printf("load balancer: %v", err)
			time.AfterFunc(retryAfter, b.poke)
		}
	}
}

// pass makes addresses and routes what the Services ask for.
func (b *balancer) pass(ctx context.Context) error {
	all, err := b.services.List(labels.Everything())
	if err != nil {
		return err
	}
	// Oldest first, so that an address that two Services claim stays with the first.
	slices.SortFunc(all, func(x, y *corev1.Service) int {
		if c := x.CreationTimestamp.Compare(y.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(string(x.UID), string(y.UID))
	})
	addresses, err := assign(all)
	errs := []error{err}
	taken := map[netip.Addr]bool{}
	for _, s := range all {
		a, ok := addresses[s.UID]
		if ok {
			taken[a] = true
			errs = append(errs, b.routes.set(a, b.nodeFor(s).Address))
		}
		if ours(s) || released(s) {
			errs = append(errs, b.report(ctx, s, a))
		}
	}
	return errors.Join(append(errs, b.routes.retain(taken))...)
}

// ours says whether the Service asks for an address and names no other implementation.
func ours(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass == nil && s.DeletionTimestamp == nil
}

// released says whether the Service has an address of ours that it no longer asks for.
func released(s *corev1.Service) bool {
	_, has := current(s)
	return has && s.Spec.Type != corev1.ServiceTypeLoadBalancer
}

// current returns the address of ours that the Service has.
func current(s *corev1.Service) (netip.Addr, bool) {
	pool := netip.MustParsePrefix(topology.LoadBalancerPrefix)
	for _, i := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(i.IP); err == nil && pool.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// assign decides the address of every Service that asks for one: the one that it has, else the one that it asks for,
// else the lowest that is free. It reports Services that it has no address for.
func assign(all []*corev1.Service) (map[types.UID]netip.Addr, error) {
	pool := netip.MustParsePrefix(topology.LoadBalancerPrefix)
	out, taken := map[types.UID]netip.Addr{}, map[netip.Addr]bool{pool.Addr(): true}
	take := func(s *corev1.Service, a netip.Addr) bool {
		if taken[a] || !pool.Contains(a) {
			return false
		}
		out[s.UID], taken[a] = a, true
		return true
	}
	var waiting []*corev1.Service
	for _, s := range all {
		if !ours(s) {
			continue
		}
		if a, ok := current(s); !ok || !take(s, a) {
			waiting = append(waiting, s)
		}
	}
	var errs []error
	for _, s := range waiting {
		if s.Spec.LoadBalancerIP != "" {
			if a, err := netip.ParseAddr(s.Spec.LoadBalancerIP); err != nil || !take(s, a) {
				errs = append(errs, fmt.Errorf("%s/%s: loadBalancerIP %s is taken or not in %s", s.Namespace, s.Name,
					s.Spec.LoadBalancerIP, pool))
			}
			continue
		}
		a := pool.Addr().Next()
		for pool.Contains(a) && !take(s, a) {
			a = a.Next()
		}
		if !pool.Contains(a) {
			errs = append(errs, fmt.Errorf("%s/%s: every address of %s is taken", s.Namespace, s.Name, pool))
		}
	}
	return out, errors.Join(errs...)
}

// nodeFor returns the node that gets the Service's packets. With externalTrafficPolicy Local it must be one with an
// endpoint; otherwise any will do.
func (b *balancer) nodeFor(s *corev1.Service) topology.Node {
	if s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		found, err := b.slices.EndpointSlices(s.Namespace).List(
			labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: s.Name}))
		if err == nil {
			for _, n := range topology.Nodes {
				if slices.ContainsFunc(found, func(e *discoveryv1.EndpointSlice) bool { return readyOn(e, n.Name) }) {
					return n
				}
			}
		}
	}
	return topology.Nodes[0]
}

func readyOn(e *discoveryv1.EndpointSlice, node string) bool {
	return slices.ContainsFunc(e.Endpoints, func(ep discoveryv1.Endpoint) bool {
		return ep.NodeName != nil && *ep.NodeName == node && (ep.Conditions.Ready == nil || *ep.Conditions.Ready)
	})
}

// report writes the address to the Service's status, or takes it out.
func (b *balancer) report(ctx context.Context, s *corev1.Service, a netip.Addr) error {
	if now, _ := current(s); now == a {
		return nil
	}
	s = s.DeepCopy()
	s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	if a.IsValid() {
		mode := corev1.LoadBalancerIPModeVIP
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: a.String(), IPMode: &mode}}
	}
	_, err := b.client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, s, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the newer version comes by the watch
	}
	return err
}
