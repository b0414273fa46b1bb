// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// installing are the rights of who installs the mesh: what config/default has of each kind.
func installing(system string) []authorizationv1.ResourceAttributes {
	of := func(group, resource, namespace string) authorizationv1.ResourceAttributes {
		return authorizationv1.ResourceAttributes{Verb: "create", Group: group, Resource: resource, Namespace: namespace}
	}
	return []authorizationv1.ResourceAttributes{
		of("apiextensions.k8s.io", "customresourcedefinitions", ""),
		of("rbac.authorization.k8s.io", "clusterroles", ""),
		of("rbac.authorization.k8s.io", "clusterrolebindings", ""),
		of("", "namespaces", ""),
		of("", "serviceaccounts", system),
		of("", "services", system),
		of("", "resourcequotas", system),
		of("apps", "deployments", system),
		of("policy", "poddisruptionbudgets", system),
		of("networking.k8s.io", "networkpolicies", system),
		of("rbac.authorization.k8s.io", "roles", system),
		of("rbac.authorization.k8s.io", "rolebindings", system),
		of(names.Domain, "meshes", ""),
	}
}

func (k *checker) checkRights(ctx context.Context) {
	c := checked{Check: "rights", State: checkOK, Found: "you may install and upgrade the mesh", Docs: docsNeeds}
	var missing []string
	for _, r := range installing(k.system) {
		review := &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &r},
		}
		if err := k.client.Create(ctx, review); err != nil {
			c.State, c.Found = checkUnknown, "your rights can't be asked for: "+plainly(err)
			k.say(c)
			return
		}
		if !review.Status.Allowed {
			missing = append(missing, r.Resource)
		}
	}
	if len(missing) > 0 {
		c.State, c.Found = checkFailed, "you may not create "+and(missing)
		c.Do = "have a cluster administrator install the mesh"
		if k.installed {
			c.State, c.Do = checkWarning, "have a cluster administrator upgrade the mesh"
		}
	}
	k.say(c)
}

// otherMeshes are the labels and annotations of namespaces by which other meshes are told to take their pods.
var otherMeshes = []struct {
	mesh, key string
	// values that take pods; none: any does.
	values []string
}{
	{"Istio", "istio-injection", []string{"enabled"}},
	{"Istio", "istio.io/rev", nil},
	{"Istio", "istio.io/dataplane-mode", []string{"ambient"}},
	{"Linkerd", "linkerd.io/inject", []string{"enabled", "ingress"}},
	{"Kuma", "kuma.io/sidecar-injection", []string{"enabled", "true"}},
	{"Consul", "consul.hashicorp.com/connect-inject", []string{"true"}},
}

// takenBy is the other mesh that a namespace is in; empty: none.
func takenBy(n *corev1.Namespace) string {
	for _, m := range otherMeshes {
		for _, at := range []map[string]string{n.Labels, n.Annotations} {
			if v, ok := at[m.key]; ok && (m.values == nil || slices.Contains(m.values, v)) {
				return m.mesh
			}
		}
	}
	return ""
}

func (k *checker) checkOtherMeshes(ctx context.Context) {
	c := checked{Check: "other meshes", State: checkOK, Found: "no namespace is in another mesh"}
	var all corev1.NamespaceList
	if err := k.client.List(ctx, &all); err != nil {
		c.State, c.Found = checkUnknown, "namespaces can't be listed: "+plainly(err)
		k.say(c)
		return
	}
	var theirs, both groups
	for i := range all.Items {
		n := &all.Items[i]
		switch mesh := takenBy(n); {
		case mesh == "":
		case member.Enrolled(n):
			both.add(mesh, n.Name)
		default:
			theirs.add(mesh, n.Name)
		}
	}
	for _, mesh := range both.words {
		k.say(checked{
			Check: c.Check, State: checkFailed,
			Found: fmt.Sprintf("namespaces of this mesh are in %s, too: %s", mesh, enumerate(both.members[mesh])),
			Do:    "take each out of one of the two: both would capture the same traffic",
		})
	}
	for _, mesh := range theirs.words {
		k.say(checked{
			Check: c.Check, State: checkWarning,
			Found: fmt.Sprintf("namespaces are in %s: %s", mesh, enumerate(theirs.members[mesh])),
			Do:    "take a namespace out of it, and restart its pods, before you bring it into this mesh",
		})
	}
	if len(theirs.words)+len(both.words) == 0 {
		k.say(c)
	}
}

// checkNetworkPolicies finds members of the mesh that policies let callers to, but not at the port where members come.
func (k *checker) checkNetworkPolicies(ctx context.Context) {
	c := checked{Check: "NetworkPolicies", State: checkOK, Docs: docsPolicies}
	var policies networkingv1.NetworkPolicyList
	var pods corev1.PodList
	var namespaces corev1.NamespaceList
	for _, list := range []client.ObjectList{&policies, &pods, &namespaces} {
		if err := k.client.List(ctx, list); err != nil {
			c.State, c.Found = checkUnknown, "NetworkPolicies, pods or namespaces can't be listed: "+plainly(err)
			k.say(c)
			return
		}
	}
	enrolled := map[string]*corev1.Namespace{}
	for i := range namespaces.Items {
		if n := &namespaces.Items[i]; member.Enrolled(n) {
			enrolled[n.Name] = n
		}
	}
	var shut []string
	for i := range pods.Items {
		p := &pods.Items[i]
		n := enrolled[p.Namespace]
		if n != nil && (member.Is(p, n) || member.Waypoint(p)) && shutOut(p, policies.Items) {
			shut = append(shut, p.Namespace+"/"+p.Name)
		}
	}
	switch {
	case len(enrolled) == 0:
		c.Found = "no namespace is in the mesh yet"
	case len(shut) == 0:
		c.Found = fmt.Sprintf("none keeps members from port %d of pods that it lets others in to", names.PortMTLS)
	default:
		c.State = checkWarning
		c.Found = fmt.Sprintf("%s closed to members of the mesh where the network enforces them: %s", podsAre(len(shut)),
			enumerate(shut))
		c.Do = fmt.Sprintf("let callers in at port %d, too: that is where members of the mesh come", names.PortMTLS)
	}
	k.say(c)
}

// shutOut tells whether policies let callers in to some port of a pod, and nobody to the one for members of the mesh. A
// pod that nobody may reach is meant to be so.
func shutOut(p *corev1.Pod, policies []networkingv1.NetworkPolicy) bool {
	some := false
	for i := range policies {
		policy := &policies[i]
		if policy.Namespace != p.Namespace || !selectsIngressOf(policy, p) {
			continue
		}
		for _, rule := range policy.Spec.Ingress {
			if opens(rule.Ports, names.PortMTLS) {
				return false
			}
			some = some || slices.ContainsFunc(rule.Ports, isTCP)
		}
	}
	return some
}

func selectsIngressOf(policy *networkingv1.NetworkPolicy, p *corev1.Pod) bool {
	types := policy.Spec.PolicyTypes
	if len(types) > 0 && !slices.Contains(types, networkingv1.PolicyTypeIngress) {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
	return err == nil && selector.Matches(labels.Set(p.Labels))
}

func isTCP(p networkingv1.NetworkPolicyPort) bool {
	return p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP
}

// opens tells whether ports of a rule have one of TCP among them; a port's name is that of one that a pod declares,
// which the mesh's is not.
func opens(ports []networkingv1.NetworkPolicyPort, port int32) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		switch {
		case !isTCP(p):
			return false
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			return false
		case p.EndPort != nil:
			return p.Port.IntVal <= port && port <= *p.EndPort
		}
		return p.Port.IntVal == port
	})
}
