// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// MostCABytesOfNamespace bounds what the BackendTLSPolicies of a namespace may cost: the certificates of each, counted
// for each port that it is for. Proxies have them in each port's cluster, and the operator makes these.
const MostCABytesOfNamespace = 16 << 20

// backendTLS is what ingest decides about BackendTLSPolicies.
type backendTLS struct {
	tlsPolicies *policy.Policies[model.BackendTLS]
	// SpeaksTLS tells whether requests to a Service's port leave in TLS.
	SpeaksTLS *memo.Func[model.ServicePort, bool]
	// asks is what a policy asks for, by itself.
	asks *memo.Func[cluster.Key, *askedTLS]
	// overCA are policies of a namespace that would cost too much.
	overCA *memo.Func[string, map[cluster.Key]bool]
	// authoritiesOf a ConfigMap.
	authoritiesOf *memo.Func[cluster.Key, authorities]
	// readable are the ConfigMaps of a namespace that are read.
	readable *memo.Func[string, []cluster.Reference]
	// tlsAll are all that speak TLS, senderOf a port the one whose proxies its policy's status is about.
	tlsAll   *memo.Func[struct{}, map[model.ServicePort]cluster.Key]
	senderOf *memo.Func[model.ServicePort, cluster.Key]
}

func (i *Ingest) defineBackendTLS(g *memo.Graph) {
	t := &i.backendTLS
	t.readable = memo.Define(g, "readableConfigMaps", slices.Equal[[]cluster.Reference], i.readableConfigMaps)
	t.authoritiesOf = memo.Define(g, "authorities", same[authorities], i.authorities)
	t.asks = memo.Define(g, "askedTLS", reflectEqual[*askedTLS], i.askedTLS)
	t.overCA = memo.Define(g, "overCA", reflectEqual[map[cluster.Key]bool], i.tooManyCAs).Steady()
	t.tlsPolicies = definePolicies(g, i, policyKind[*gwv1.BackendTLSPolicy, model.BackendTLS]{
		in: i.store.BackendTLSPolicies, read: i.readBackendTLS, besides: i.resolvedTLS, needs: i.tlsNeeds,
		ports: i.portsOfAnyService,
	})
	t.SpeaksTLS = memo.Define(g, "speaksTLS", same[bool], func(c *memo.Ctx, p model.ServicePort) bool {
		return i.tlsOf(c, p) != nil
	})
	t.tlsAll = memo.Define(g, "tlsSenders", maps.Equal[map[model.ServicePort]cluster.Key], i.tlsSenders).Steady()
	t.senderOf = memo.Define(g, "tlsSender", same[cluster.Key], func(c *memo.Ctx, p model.ServicePort) cluster.Key {
		return t.tlsAll.Get(c, struct{}{})[p]
	})
}

// tlsOf is how the application behind a port is spoken TLS with; nil: it isn't.
func (i *Ingest) tlsOf(c *memo.Ctx, p model.ServicePort) *model.BackendTLS {
	in := i.tlsPolicies.InForce.Get(c, model.Attachment{Port: p})
	switch {
	case in == nil:
		return nil
	case in.Invalid != "":
		return &model.BackendTLS{Refused: true}
	}
	return &in.Content
}

// portsOfAnyService are those of Services outside the mesh, too: waypoints send to them.
func (i *Ingest) portsOfAnyService(c *memo.Ctx, key cluster.Key) ([]policy.Section, *conditions.Verdict) {
	if svc := i.Service.Get(c, key); svc != nil && !svc.Enrolled {
		return sectionsOf(svc), nil
	}
	return i.portsAsTargets(c, key)
}

// askedTLS is what a policy asks for, by itself.
type askedTLS struct {
	model.BackendTLS
	// unresolved is the first reason why some authorities can't be found, with the sentences of all.
	unresolved *Verdict
	// invalid says why it can't be carried out.
	invalid *Verdict
}

// askedTLS is nil where there is no such policy.
func (i *Ingest) askedTLS(c *memo.Ctx, key cluster.Key) *askedTLS {
	p, ok := i.store.BackendTLSPolicies.Get(c, key)
	if !ok {
		return nil
	}
	return i.verification(c, key.Namespace, p.Spec.Validation)
}

// verification is who must answer, as an object of a namespace says it.
func (i *Ingest) verification(c *memo.Ctx, namespace string, v gwv1.BackendTLSPolicyValidation) *askedTLS {
	out := &askedTLS{BackendTLS: model.BackendTLS{Hostname: string(v.Hostname)}}
	for _, name := range v.SubjectAltNames {
		switch name.Type {
		case gwv1.HostnameSubjectAltNameType:
			out.Hosts = append(out.Hosts, string(name.Hostname))
		case gwv1.URISubjectAltNameType:
			out.URIs = append(out.URIs, string(name.URI))
		}
	}
	if len(v.SubjectAltNames) == 0 {
		out.Hosts = []string{string(v.Hostname)}
	}
	switch known := ptr.Deref(v.WellKnownCACertificates, ""); {
	case len(v.CACertificateRefs) > 0:
		i.resolveAuthorities(c, namespace, v, out)
	case known == gwv1.WellKnownCACertificatesSystem:
		out.System = true
	default:
		out.invalid = &Verdict{Reason: string(gwv1.PolicyReasonInvalid), Message: fmt.Sprintf(
			"validation.wellKnownCACertificates: %q is not supported, only System is, so requests are refused", known)}
	}
	return out
}

// resolveAuthorities finds the certificates that a policy refers to.
func (i *Ingest) resolveAuthorities(
	c *memo.Ctx, namespace string, v gwv1.BackendTLSPolicyValidation, out *askedTLS,
) {
	var problems []string
	var seen []string
	for _, ref := range v.CACertificateRefs {
		found, reason := authorities{}, gwv1.BackendTLSPolicyReasonInvalidCACertificateRef
		if cluster.IsConfigMap(ref) {
			found = i.authoritiesOf.Get(c, cluster.Key{Namespace: namespace, Name: string(ref.Name)})
		} else {
			reason = gwv1.BackendTLSPolicyReasonInvalidKind
			found.problem = fmt.Sprintf("%s %s is of a kind that is not supported: certificates are read of ConfigMaps of the "+
				"core group", ref.Kind, ref.Name)
		}
		switch {
		case found.problem == "" && !slices.Contains(seen, found.pem):
			seen = append(seen, found.pem)
		case found.problem != "" && out.unresolved == nil:
			out.unresolved = &Verdict{Reason: string(reason)}
			fallthrough
		case found.problem != "":
			problems = append(problems, found.problem)
		}
	}
	out.CAs = strings.Join(seen, "")
	if out.unresolved != nil {
		out.unresolved.Message = strings.Join(problems, "; ")
	}
	if len(seen) == 0 {
		out.invalid = &Verdict{Reason: string(gwv1.BackendTLSPolicyReasonNoValidCACertificate), Message: fmt.Sprintf(
			"no certificate of an authority can be read, so requests are refused: %s", out.unresolved.Message)}
	}
}

func (i *Ingest) readBackendTLS(c *memo.Ctx, p *gwv1.BackendTLSPolicy) (out model.BackendTLS, invalid string) {
	key := cluster.Key{Namespace: p.Namespace, Name: p.Name}
	asked := i.asks.Get(c, key)
	switch {
	case asked == nil:
		return model.BackendTLS{}, "" // it isn't there any more
	case asked.invalid != nil:
		return model.BackendTLS{}, asked.invalid.Message
	case i.overCA.Get(c, p.Namespace)[key]:
		return model.BackendTLS{}, fmt.Sprintf("the BackendTLSPolicies of a namespace are limited to %d MiB of "+
			"certificates, counted for each port that a policy is for, and older ones in namespace %s have that, so requests "+
			"are refused: use fewer certificates or fewer targets", MostCABytesOfNamespace>>20, p.Namespace)
	}
	return asked.BackendTLS, ""
}

// resolvedTLS adds condition ResolvedRefs.
func (i *Ingest) resolvedTLS(c *memo.Ctx, p *gwv1.BackendTLSPolicy, out *policy.Policy[model.BackendTLS]) {
	asked := i.asks.Get(c, cluster.Key{Namespace: p.Namespace, Name: p.Name})
	if asked == nil {
		return
	}
	if asked.invalid != nil {
		out.Reason = gwv1.PolicyConditionReason(asked.invalid.Reason)
	}
	out.Besides = []metav1.Condition{conditions.Judged(
		string(gwv1.BackendTLSPolicyConditionResolvedRefs), asked.unresolved,
		string(gwv1.BackendTLSPolicyReasonResolvedRefs), "All certificates of authorities were found", p.Generation)}
}

// tooManyCAs are those of a namespace's policies that would cost too much; the oldest come first.
func (i *Ingest) tooManyCAs(c *memo.Ctx, namespace string) map[cluster.Key]bool {
	var bills []*bill
	for _, key := range i.store.BackendTLSPolicies.By(c, cluster.ByNamespace, namespace) {
		p, ok := i.store.BackendTLSPolicies.Get(c, key)
		asked := i.asks.Get(c, key)
		if !ok || asked == nil {
			continue
		}
		ports := 0
		for _, t := range p.Spec.TargetRefs {
			svc := i.Service.Get(c, cluster.Key{Namespace: namespace, Name: string(t.Name)})
			switch {
			case svc != nil && t.SectionName == nil:
				ports += len(svc.Ports)
			case svc != nil:
				ports++
			}
		}
		bills = append(bills, &bill{
			ref:     model.ObjectRef{Kind: cluster.NameOf(p), Namespace: key.Namespace, Name: key.Name},
			created: p.CreationTimestamp.Time, all: cost{bytes: ports * len(asked.CAs)},
		})
	}
	out := map[cluster.Key]bool{}
	spend(bills, func(b *bill) cost { return b.all }, cost{bytes: MostCABytesOfNamespace}, func(b *bill, _ cost) {
		out[keyOf(b)] = true
	})
	return out
}

// tlsNeeds: a waypoint must send requests to the ports, be it the Service's own or one with routes that lead there. Of
// several that do, and that have routes only, one is asked.
func (i *Ingest) tlsNeeds(c *memo.Ctx, at []model.Attachment) ParentReport {
	svc := at[0].Port.ServiceName()
	b := i.Binding.Get(c, svc)
	own := i.unserved(c, svc, "none") == nil
	var out ParentReport
	for _, a := range at {
		sender := i.senderOf.Get(c, a.Port)
		if own {
			sender = b.Waypoint
		}
		if out.Waypoint == (cluster.Key{}) {
			out.Waypoint = sender
		}
		w := i.Waypoint.Get(c, out.Waypoint)
		if w == nil || out.Waypoint != sender || !sendsTo(w, a.Port) {
			continue
		}
		out.Clusters = append(out.Clusters, i.clusterName(c, a.Port))
		if _, served := w.Port(a.Port); served && i.protocolOf.Get(c, a).HTTP() {
			out.Attachments = append(out.Attachments, a) // whose tables lead there
		}
	}
	out.Stalled = cluster.GatewayStalled(i.gateway(c, out.Waypoint))
	switch {
	case len(out.Clusters) > 0 && own:
		out.Pending, out.Dialled = b.Pending, i.dialled(c, out.Attachments)
		return out
	case len(out.Clusters) > 0:
		return out
	case own:
		return ParentReport{Unprogrammed: &Verdict{Reason: v1alpha1.PolicyReasonNotRequests, Message: fmt.Sprintf(
			"no port of Service %s that the policy is in force for is HTTP or the backend of a route: connections that a "+
				"waypoint passes on as they are, are not made TLS", svc)}}
	}
	return ParentReport{Unprogrammed: &Verdict{Reason: v1alpha1.EntryReasonNoWaypoint, Message: fmt.Sprintf(
		"no waypoint sends requests to Service %s, and nothing else carries the policy out", svc)}}
}

func sendsTo(w *model.Waypoint, p model.ServicePort) bool {
	_, found := slices.BinarySearchFunc(w.Backends, p, model.ServicePort.Compare)
	return found
}

// tlsSenders are the ports that are spoken TLS with, each with a waypoint that does: one of its namespace, if any.
func (i *Ingest) tlsSenders(c *memo.Ctx, _ struct{}) map[model.ServicePort]cluster.Key {
	out := map[model.ServicePort]cluster.Key{}
	for _, gateway := range i.store.Gateways.By(c, cluster.All, "") {
		w := i.Waypoint.Get(c, gateway)
		if w == nil || !w.Tunnels {
			continue
		}
		for _, p := range w.Backends {
			if has, known := out[p]; i.SpeaksTLS.Get(c, p) &&
				(!known || has.Namespace != p.Namespace && gateway.Namespace == p.Namespace) {
				out[p] = gateway
			}
		}
	}
	return out
}
