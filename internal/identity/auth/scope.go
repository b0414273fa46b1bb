// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Pod is what a decision needs to know of a pod.
type Pod struct {
	Namespace string
	Name      string
	UID       string
	Node      string
	// ServiceAccount is empty for a pod that has no identity.
	ServiceAccount string
	Labels         map[string]string
	// Terminated: the phase is Succeeded or Failed.
	Terminated bool
}

// Pods finds pods, from an informer's cache.
type Pods interface {
	Pod(namespace, name string) (Pod, bool)
}

// Workloads tells where enrolled pods run.
type Workloads interface {
	// RunsOn tells whether an enrolled pod of the service account that hasn't terminated is bound to the node.
	RunsOn(node, namespace, serviceAccount string) bool
}

// Grant is what a caller is to the mesh.
type Grant struct {
	kind   catalogue.Kind
	Scope  xds.Scope
	Caller Caller
}

// Authorizer decides what callers may have. Its fields are set once.
type Authorizer struct {
	// SystemNamespace is where the node agents run.
	SystemNamespace string
	// TrustDomain is that of the mesh; empty while there is no CA.
	TrustDomain func() string
	Pods        Pods
	Workloads   Workloads
	// Waypoint says why a pod that carries a Gateway's label is none of its waypoint all the same; nil if it is one. Its
	// errors are ErrForbidden or ErrUnavailable.
	Waypoint func(pod Pod, gateway string) error
}

// Scope decides what a caller is. ErrForbidden: nothing of ours. ErrUnavailable: the pod isn't known yet.
func (z *Authorizer) Scope(c Caller) (Grant, error) {
	if c.Namespace == z.SystemNamespace && c.ServiceAccount == names.NodeServiceAccount {
		return Grant{kind: catalogue.Node, Scope: catalogue.NodeScope(c.NodeName), Caller: c}, nil
	}
	pod, ok := z.Pods.Pod(c.Namespace, c.PodName)
	if !ok {
		return Grant{}, fmt.Errorf("%w: %s isn't known to the operator yet", ErrUnavailable, c)
	}
	switch {
	case pod.UID != c.PodUID:
		return Grant{}, fmt.Errorf("%w: the token belongs to an earlier pod of the name %s/%s", ErrForbidden, c.Namespace,
			c.PodName)
	case pod.ServiceAccount != c.ServiceAccount || pod.Node != c.NodeName:
		return Grant{}, fmt.Errorf("%w: the token doesn't fit %s", ErrForbidden, c)
	case pod.Terminated:
		return Grant{}, fmt.Errorf("%w: %s has terminated", ErrForbidden, c)
	}
	gateway := pod.Labels[names.LabelGatewayName]
	if gateway == "" {
		return Grant{}, fmt.Errorf("%w: %s is neither a node agent nor a proxy of a Gateway (it has no label %s)",
			ErrForbidden, c, names.LabelGatewayName)
	}
	if err := z.Waypoint(pod, gateway); err != nil {
		return Grant{}, fmt.Errorf("%s is not a proxy of Gateway %s/%s: %w", c, c.Namespace, gateway, err)
	}
	return Grant{kind: catalogue.Waypoint, Scope: catalogue.WaypointScope(
		types.NamespacedName{Namespace: c.Namespace, Name: gateway}), Caller: c}, nil
}

// MayHave decides whether a caller may get a certificate for a SPIFFE ID: a node agent for enrolled pods on its node, a
// waypoint for itself.
func (z *Authorizer) MayHave(g Grant, id string) error {
	td := z.TrustDomain()
	if td == "" {
		return identity.ErrNotReady
	}
	ns, sa, err := identity.ParseID(td, id)
	if err != nil {
		return err
	}
	if ns == z.SystemNamespace && sa == names.OperatorServiceAccount {
		return fmt.Errorf("%w: nobody gets the operator's own identity", ErrForbidden)
	}
	switch g.kind {
	case catalogue.Waypoint:
		if ns == g.Caller.Namespace && sa == g.Caller.ServiceAccount {
			return nil
		}
		return fmt.Errorf("%w: a waypoint gets a certificate for its own service account only, not for %s", ErrForbidden, id)
	case catalogue.Node:
		if z.Workloads.RunsOn(g.Caller.NodeName, ns, sa) {
			return nil
		}
		return fmt.Errorf("%w: no enrolled pod with service account %s/%s runs on node %s", ErrForbidden, ns, sa,
			g.Caller.NodeName)
	}
	return fmt.Errorf("%w: unknown kind of proxy %q", ErrForbidden, g.kind)
}
