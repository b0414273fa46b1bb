// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// podDescription is what `fairway describe pod` shows and prints as JSON.
type podDescription struct {
	Pod string `json:"pod"`
	beingDeleted
	// Captured tells whether its traffic passes its node's proxy, Expected whether it should, and Reason why not.
	Captured bool   `json:"captured"`
	Expected bool   `json:"expected"`
	Reason   string `json:"reason,omitempty"`
	// Mode is what its agent says of a pod that is captured.
	Mode     string `json:"mode,omitempty"`
	Identity string `json:"identity,omitempty"`
	Node     string `json:"node,omitempty"`
	// Proxy of its node, and Certificate that it holds for the pod; missing where they could not be asked for.
	Proxy       *proxyFact       `json:"proxy,omitempty"`
	Certificate *certificateFact `json:"certificate,omitempty"`
	// Services and Policies are null where they could not be asked for.
	Services []serviceOfPod `json:"services"`
	// Connect says who may connect, in sentences; Policies are those that decide.
	Connect     []string     `json:"connect,omitempty"`
	Policies    []policyFact `json:"policies"`
	CouldNotAsk []string     `json:"couldNotAsk,omitempty"`
}

type proxyFact struct {
	Pod   string `json:"pod"`
	Ready bool   `json:"ready"`
	// State as status has it; empty where it could not be asked for.
	State string `json:"state,omitempty"`
	// Types are what it has acknowledged.
	Types []introspect.Type `json:"types,omitempty"`
}

type certificateFact struct {
	Expires time.Time `json:"expires"`
}

// serviceOfPod is a Service that has the pod among its endpoints.
type serviceOfPod struct {
	Service     string `json:"service"`
	Ports       string `json:"ports"`
	Waypoint    string `json:"waypoint,omitempty"`
	Connections string `json:"connections"`
}

func (k *collector) describePod(ctx context.Context, key types.NamespacedName) (*podDescription, error) {
	p := k.podNamed(key)
	if p == nil {
		return nil, k.notThere("pod "+key.String(), whatPods)
	}
	d := &podDescription{
		Pod: key.String(), beingDeleted: deletionOf(p), Node: p.Spec.NodeName, CouldNotAsk: k.couldNotAsk(),
	}
	r := k.podReport(p)
	d.Captured, d.Expected, d.Reason = r.Captured, r.Expected, r.Reason
	switch said := k.meshSays(); {
	case r.Captured:
		d.Mode = oneLine(member.Condition(p).Message)
	case k.namespaces[p.Namespace] == nil:
		d.Reason = "whether namespace " + p.Namespace + " is in the mesh could not be asked"
	case said != "" && k.mesh == nil && !k.meshUnknown:
		d.Reason = said
	}
	if r.Captured && k.mesh != nil {
		d.Identity = member.Identity(member.TrustDomain(k.mesh), p)
	}
	if k.meaning != nil {
		if d.BeingDeletedSince == nil { // one that is being deleted is counted no more, and guarded to its end
			k.describeAccess(d, p)
		} else {
			d.Policies = []policyFact{}
		}
		if !k.unread[whatEndpointSlices] {
			d.Services = k.servicesWith(p)
		}
	} else {
		d.CouldNotAsk = append(d.CouldNotAsk, "its Services, and who may connect: too little could be read to tell")
	}
	if (r.Captured || r.Expected) && p.Spec.NodeName != "" {
		k.describeNodeProxy(ctx, d, p)
	}
	return d, nil
}

func (k *collector) podNamed(key types.NamespacedName) *corev1.Pod {
	for i := range k.pods {
		if client.ObjectKeyFromObject(&k.pods[i]) == key {
			return &k.pods[i]
		}
	}
	return nil
}

// describeAccess says who the pod is, and who may connect.
func (k *collector) describeAccess(d *podDescription, p *corev1.Pod) {
	f, found := k.meaning.Pod(client.ObjectKeyFromObject(p))
	if !found || !f.Member || f.Guard == nil {
		d.Policies = []policyFact{}
		d.Connect = []string{"anybody whom the network lets: no proxy of the mesh guards it"}
		return
	}
	if k.meshUnknown { // the trust domain is the Mesh's to say
		_, rest, _ := strings.Cut(strings.TrimPrefix(f.Identity, "spiffe://"), "/")
		d.Identity = "spiffe://TRUST-DOMAIN/" + rest
	} else {
		d.Identity = f.Identity
	}
	if !k.policiesUnread() {
		d.Policies = policiesOf(f.Guard.Guard)
	}
	if len(f.Guard.Only) > 0 {
		d.Connect = append(d.Connect, portsInWords(f.Guard.Only)+": its waypoint alone, where requests are decided")
	}
	mode := member.Decide(p, k.namespaces[p.Namespace], k.meshOrEmpty(), k.system, k.policies...)
	plain := "those without identity: let in in plain text"
	switch {
	case k.meshUnknown && p.Labels[names.LabelMTLSMode] == "" &&
		k.namespaces[p.Namespace].Labels[names.LabelMTLSMode] == "" && len(mode.Except) == 0 && !mode.Strict:
		plain = "those without identity: as the Mesh says, which could not be asked"
	case mode.Strict && len(mode.Except) > 0:
		plain = "those without identity: refused, but at " + portsInWords(mode.Except)
	case mode.Strict:
		plain = "those without identity: refused"
	case len(mode.Except) > 0:
		plain = "those without identity: refused at " + portsInWords(mode.Except) + ", and let in elsewhere in plain text"
	}
	d.Connect = append(d.Connect, k.inTheMesh(f.Guard.Guard), plain)
}

// inTheMesh says whom a guard lets in of those with an identity.
func (k *collector) inTheMesh(g model.Guard) string {
	allow, deny := g.DefaultDeny, false
	for _, p := range g.InForce().Network {
		allow, deny = allow || !p.Deny, deny || p.Deny
	}
	const who, unless = "members of the mesh: ", ", unless the Mesh refuses by default, which could not be asked"
	switch {
	case k.policiesUnread():
		return who + "unknown, for not all policies could be asked for"
	case allow && deny:
		return who + "those whom a policy allows and none denies"
	case allow:
		return who + "those whom a policy allows"
	case deny && k.meshUnknown:
		return who + "all whom no policy denies" + unless
	case deny:
		return who + "all whom no policy denies"
	case k.meshUnknown:
		return who + "all, for no policy is in force" + unless
	}
	return who + "all, for no policy is in force"
}

// servicesWith are the Services that have the pod among their endpoints.
func (k *collector) servicesWith(p *corev1.Pod) []serviceOfPod {
	out := []serviceOfPod{}
	key := client.ObjectKeyFromObject(p)
	for i := range k.services {
		s := &k.services[i]
		f, found := k.meaning.Service(client.ObjectKeyFromObject(s))
		if !found {
			continue
		}
		var ports []string
		for _, port := range f.Ports {
			for _, e := range port.Endpoints {
				if e.Pod == key {
					ports = append(ports, fmt.Sprintf("%d to %d", port.Number, e.Address.Port()))
					break
				}
			}
		}
		if len(ports) > 0 {
			r := k.serviceReport(s)
			out = append(out, serviceOfPod{
				Service: client.ObjectKeyFromObject(s).String(), Ports: strings.Join(ports, ", "), Waypoint: r.Waypoint,
				Connections: r.Connections,
			})
		}
	}
	return out
}

// describeNodeProxy asks for the proxy of the pod's node, and for what it holds for the pod.
func (k *collector) describeNodeProxy(ctx context.Context, d *podDescription, p *corev1.Pod) {
	own, failed := k.ownPods(ctx)
	if failed != nil {
		d.CouldNotAsk = append(d.CouldNotAsk, "its node's proxy, and the certificate that it holds: "+k.ownDenied(failed))
		return
	}
	for i := range own {
		if o := &own[i]; k.isNodeProxy(o) && o.Spec.NodeName == p.Spec.NodeName && (d.Proxy == nil || !d.Proxy.Ready) {
			d.Proxy = &proxyFact{Pod: client.ObjectKeyFromObject(o).String(), Ready: podReady(o)}
		}
	}
	if d.Proxy == nil {
		return
	}
	streams, missing := k.streamsOf(ctx, own, nil)
	d.CouldNotAsk = append(d.CouldNotAsk, missing...)
	d.Proxy.state(streams, len(missing) > 0)
	if !d.Captured {
		return
	}
	certificate, err := k.certificateOf(ctx, podOf(d.Proxy.Pod), p)
	if err != nil {
		d.CouldNotAsk = append(d.CouldNotAsk, "its certificate, of its node's proxy: "+plainly(err))
	}
	d.Certificate = certificate
}

// state is what the operators say of a proxy.
func (f *proxyFact) state(streams []connected, partial bool) {
	var found *connected
	for i, s := range streams {
		if s.Pod == f.Pod && (found == nil || s.Connected.After(found.Connected)) {
			found = &streams[i]
		}
	}
	switch {
	case found != nil:
		r := reportOf(*found)
		f.State, f.Types = r.State, r.Types
	case !partial:
		f.State = stateDisconnected
	}
}

// certificateOf a pod, as its node's proxy holds it; nil if it holds none.
func (k *collector) certificateOf(
	ctx context.Context, proxy types.NamespacedName, p *corev1.Pod,
) (*certificateFact, error) {
	answer, err := k.reach.get(ctx, proxy, introspect.PathEnvoy+"config_dump")
	if err != nil {
		return nil, err
	}
	section, err := dumpSection("SecretsConfigDump")(answer)
	if err != nil {
		return nil, err
	}
	var dump envoySecrets
	if err := json.Unmarshal(section, &dump); err != nil {
		return nil, fmt.Errorf("its secrets can't be read: %w", err)
	}
	of := filterFor(p)
	for _, s := range dump.Active {
		if s.Secret.Certificate == nil || !of.secret(s.Name) {
			continue
		}
		if chain := s.Secret.Certificate.Chain.certificates(); len(chain) > 0 {
			return &certificateFact{Expires: chain[0].NotAfter}, nil
		}
	}
	return nil, nil
}

func (d *podDescription) draw(t *table, now time.Time) {
	is := "no: " + cmp.Or(d.Reason, unknownCell)
	if d.Captured {
		is = strings.TrimSpace("yes. " + d.Mode)
	} else if d.Expected {
		is = "it should be, and is not: " + cmp.Or(d.Reason, unknownCell)
	}
	fields := [][]string{{"In the mesh", is}}
	if d.Identity != "" {
		fields = append(fields, []string{"Identity", d.Identity})
	}
	switch c := d.Certificate; {
	case c == nil && d.Captured && d.Proxy != nil:
		fields = append(fields, []string{"Certificate", unknownCell})
	case c == nil:
	case now.After(c.Expires):
		fields = append(fields, []string{"Certificate", "expired " + ago(c.Expires, now) + " ago"})
	default:
		fields = append(fields, []string{"Certificate", "expires in " + ago(now, c.Expires)})
	}
	fields = append(fields, []string{"Node", cmp.Or(d.Node, "none yet")})
	if d.Proxy != nil {
		fields = append(fields, []string{"Node proxy", d.Proxy.String()})
	} else if d.Captured || d.Expected {
		proxy := unknownCell
		if len(d.CouldNotAsk) == 0 {
			proxy = "none"
		}
		fields = append(fields, []string{"Node proxy", proxy})
	}
	t.line("Pod %s", d.Pod)
	t.fields(append(d.fields(now), fields...))
	var rows [][]string
	for _, s := range d.Services {
		rows = append(rows, []string{s.Service, s.Ports, dash(s.Waypoint), s.Connections})
	}
	if d.Services == nil {
		t.line("\nServices: unknown, see below")
	}
	drawRows(t, []string{"SERVICE", "PORTS", "WAYPOINT", "CONNECTIONS"}, rows)
	if len(d.Connect) > 0 {
		t.line("\nWho may connect to it:")
	}
	for _, s := range d.Connect {
		t.line("  - %s", s)
	}
	drawPolicies(t, d.Policies)
	drawCouldNotAsk(t, d.CouldNotAsk)
}

func (f *proxyFact) String() string {
	ready := "ready"
	if !f.Ready {
		ready = "not ready"
	}
	return fmt.Sprintf("%s, %s, %s", f.Pod, ready, cmp.Or(f.State, "whether it is in sync is unknown"))
}
