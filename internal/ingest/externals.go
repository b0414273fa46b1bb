// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/gatewayapi"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// externals is what ingest decides about XBackends: hosts outside the cluster.
type externals struct {
	// External is nil where there is no such XBackend.
	External *memo.Func[cluster.Key, *External]
	// NotOutside are the ranges in which no host outside is, sorted.
	NotOutside *memo.Func[struct{}, []netip.Prefix]
	// overExternals are XBackends that the routes of a namespace can't have any more, with why.
	overExternals *memo.Func[string, map[cluster.Key]string]
	// waysOut are the ports of a namespace's Services of which requests leave the cluster, sorted.
	waysOut *memo.Func[string, []model.ServicePort]
}

// External is an XBackend.
type External struct {
	model.External
	uid        types.UID
	generation int64
	created    time.Time
	// refused says why no request can leave by it; unresolved, what of its authorities can't be found.
	refused, unresolved *Verdict
}

func (i *Ingest) defineExternals(g *memo.Graph) {
	i.External = memo.Define(g, "external", reflectEqual[*External], i.externalOf)
	i.NotOutside = memo.Define(g, "notOutside", slices.Equal[[]netip.Prefix], i.notOutside)
	i.overExternals = memo.Define(g, "overExternals", maps.Equal[map[cluster.Key]string], i.tooManyExternals).Steady()
	i.waysOut = memo.Define(g, "waysOut", slices.Equal[[]model.ServicePort], i.waysOutOf).Steady()
	i.policyReports[cluster.KindXBackend] = i.externalReport
}

func (i *Ingest) externalOf(c *memo.Ctx, key cluster.Key) *External {
	b, ok := i.store.XBackends.Get(c, key)
	if !ok {
		return nil
	}
	out := &External{uid: b.UID, generation: b.Generation, created: b.CreationTimestamp.Time}
	out.Name = key
	if b.Spec.ExternalHostname == nil {
		out.refused = unusable(gwv1.RouteReasonUnsupportedValue,
			"type %q is not supported, only %s is", b.Spec.Type, gwxv1alpha1.BackendTypeExternalHostname)
		return out
	}
	if b.Spec.Port.Port == 0 {
		// Gateway API 1.7 has the port in another field, which the types of 1.6 drop.
		out.refused = unusable(gwv1.RouteReasonUnsupportedValue,
			"spec.port.port is missing: XBackends are read as Gateway API %s has them", gatewayapi.Built)
		return out
	}
	out.ExternalHost = model.ExternalHost{
		Name: key, Host: strings.ToLower(string(b.Spec.ExternalHostname.Hostname)), Port: portNumber(int32(b.Spec.Port.Port)),
	}
	if why := notAHost(out.Host); why != "" {
		out.refused = unusable(v1alpha1.XBackendReasonInvalidHostname, "hostname %s %s", out.Host, why)
		return out
	}
	if out.refused = i.externalTLS(c, b, out); out.refused != nil {
		return out
	}
	out.Secure = out.TLS != nil
	if out.Protocol, out.refused = protocolOf(b.Spec.Protocol, out.Secure); out.refused == nil {
		out.Version = versionOf(out.External)
	}
	return out
}

func unusable[R ~string](reason R, format string, args ...any) *Verdict {
	return &Verdict{Reason: string(reason), Message: fmt.Sprintf(format, args...)}
}

// versionOf tells apart all that makes a difference to proxies.
func versionOf(e model.External) string {
	all, err := json.Marshal(e)
	if err != nil { // of strings and numbers: never
		return ""
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:8])
}

// notAHost says why a name can't be one of a host outside; "" if it can. What a name stands for is another matter:
// wherever it leads, NotOutside holds.
func notAHost(host string) string {
	_, last, _ := cut(host)
	switch {
	case !strings.Contains(host, "."):
		return "has one label only, which would be a name within the cluster: use a name with its domain"
	case numeric(last):
		return "is an address, or would be read as one: use a name"
	case host == names.DefaultClusterDomain, strings.HasSuffix(host, "."+names.DefaultClusterDomain):
		return "is a name of the cluster: name the Service in backendRefs instead"
	case last == "localhost":
		return "is a name of the machine itself"
	case len(host) > 253 || slices.ContainsFunc(strings.Split(host, "."), func(l string) bool { return len(l) > 63 }):
		return "is longer than DNS has it: labels have 63 characters at most"
	}
	return ""
}

// cut a name before its last label.
func cut(host string) (before, last string, dotted bool) {
	if n := strings.LastIndex(host, "."); n >= 0 {
		return host[:n], host[n+1:], true
	}
	return "", host, false
}

// numeric tells whether some resolvers read a name that ends so as an address: in decimal, octal or hexadecimal.
func numeric(label string) bool {
	digits, hexadecimal := strings.CutPrefix(label, "0x")
	all := func(set string) bool { return strings.Trim(digits, set) == "" }
	return hexadecimal && all("0123456789abcdef") || all("0123456789")
}

// externalTLS reads how the host is verified, and says why it can't be.
func (i *Ingest) externalTLS(c *memo.Ctx, b *gwxv1alpha1.XBackend, out *External) *Verdict {
	t := b.Spec.TLS
	if t == nil || t.Mode == gwxv1alpha1.BackendTLSModeNone {
		return nil
	}
	if t.Mode != gwxv1alpha1.BackendTLSModeServerOnly {
		return unusable(gwv1.RouteReasonUnsupportedValue, "tls.mode %q is not supported: the mesh reads no Secrets, so it "+
			"has no certificate to show; use %s", t.Mode, gwxv1alpha1.BackendTLSModeServerOnly)
	}
	v := t.Validation
	if v.Hostname == "" {
		v.Hostname = gwv1.PreciseHostname(out.Host)
	}
	if len(v.CACertificateRefs) == 0 && v.WellKnownCACertificates == nil {
		v.WellKnownCACertificates = new(gwv1.WellKnownCACertificatesSystem)
	}
	asked := i.verification(c, b.Namespace, v)
	out.unresolved = asked.unresolved
	if asked.invalid != nil {
		return asked.invalid
	}
	out.TLS = &asked.BackendTLS
	return nil
}

// protocolOf is what the host is spoken to in, or why it can't be spoken to.
func protocolOf(asked *gwxv1alpha1.BackendProtocol, secure bool) (model.ExternalProtocol, *Verdict) {
	refuse := func(format string, args ...any) (model.ExternalProtocol, *Verdict) {
		return "", unusable(gwv1.RouteReasonUnsupportedProtocol, format, args...)
	}
	switch p := ptr.Deref(asked, ""); p {
	case "":
		if secure {
			return model.ExternalNegotiated, nil
		}
		return model.ExternalAsCaller, nil
	case gwxv1alpha1.BackendProtocolHTTP:
		if secure {
			return model.ExternalNegotiated, nil
		}
		return model.ExternalHTTP11, nil
	case gwxv1alpha1.BackendProtocolHTTP11:
		return model.ExternalHTTP11, nil
	case gwxv1alpha1.BackendProtocolHTTP2:
		if !secure {
			return refuse("protocol %s is HTTP/2 in TLS, and the XBackend has no TLS: use H2C, or set tls", p)
		}
		return model.ExternalHTTP2, nil
	case gwxv1alpha1.BackendProtocolH2C:
		if secure {
			return refuse("protocol %s is HTTP/2 in plain text, and the XBackend has TLS: use HTTP2", p)
		}
		return model.ExternalHTTP2, nil
	default:
		return refuse("protocol %s is not supported: waypoints send requests of HTTP outside, by HTTP, HTTP11, HTTP2 or "+
			"H2C", p)
	}
}

// backendOrHost resolves what a rule sends requests to: a Service's port, or a host outside.
func (b *routeBuilder) backendOrHost(ref gwv1.BackendObjectReference, weight *int32) model.Backend {
	key, external := cluster.XBackendOf(b.route.ref.Namespace, ref)
	if !external {
		return b.backend(ref, weight, b.sent)
	}
	out := invalidBackend(weight)
	if why := b.unavailable(key, ref); why != nil {
		b.noteUnresolved(gwv1.RouteConditionReason(why.Reason), "%s", why.Message)
		return out
	}
	host := b.i.External.Get(b.c, key).ExternalHost
	out.Invalid, out.External = false, &host
	return out
}

// unavailable says why a route's requests can't leave by an XBackend.
func (b *routeBuilder) unavailable(key cluster.Key, ref gwv1.BackendObjectReference) *Verdict {
	ns := b.route.ref.Namespace
	if !b.mayLeave(key) {
		return unusable(gwv1.RouteReasonRefNotPermitted,
			"backend XBackend %s is in another namespace: a ReferenceGrant there must allow %ss of namespace %s to refer to "+
				"XBackends", key, b.route.ref.Kind, ns)
	}
	for _, p := range b.route.parents {
		if p.service.Namespace != ns && p.service.Name != "" {
			// The waypoint is the Service's owner's, and so is what leaves by it.
			return unusable(gwv1.RouteReasonRefNotPermitted,
				"backend XBackend %s: a route for a Service of another namespace (%s) can't have requests leave the cluster, for "+
					"they would leave from that namespace's waypoint", key, p.service)
		}
	}
	e := b.i.External.Get(b.c, key)
	if e == nil {
		return unusable(gwv1.RouteReasonBackendNotFound, "backend XBackend %s does not exist", key)
	}
	if !slices.Contains(b.route.externals, key) {
		b.route.externals = append(b.route.externals, key)
	}
	over := b.i.overExternals.Get(b.c, ns)[key]
	switch {
	case e.refused != nil:
		return unusable(e.refused.Reason, "backend XBackend %s: %s", key, e.refused.Message)
	case over != "":
		return unusable(v1alpha1.RouteReasonOverBudget, "backend XBackend %s: %s", key, over)
	case ref.Port != nil && portNumber(*ref.Port) != e.Port:
		return unusable(gwv1.RouteReasonUnsupportedValue, "backend XBackend %s has port %d, not %d", key, e.Port, *ref.Port)
	case b.route.ref.Kind == kindGRPCRoute && e.Protocol == model.ExternalHTTP11:
		return unusable(gwv1.RouteReasonUnsupportedProtocol, "backend XBackend %s is spoken to in HTTP/1.1, which carries "+
			"no gRPC: use protocol HTTP2 or H2C", key)
	}
	return nil
}

// mayLeave tells whether the route may refer to an XBackend.
func (b *routeBuilder) mayLeave(key cluster.Key) bool {
	return key.Namespace == b.route.ref.Namespace ||
		b.i.permitted(b.c, b.asReferrer(), policyXBackend(key))
}

// ruleExternals are the hosts outside that rules send requests to.
func ruleExternals(rules []model.Rule) (out []*model.ExternalHost) {
	for _, r := range rules {
		for _, b := range r.Backends {
			if !b.Invalid && b.External != nil {
				out = append(out, b.External)
			}
		}
	}
	return out
}

func (i *Ingest) waysOutOf(c *memo.Ctx, namespace string) (out []model.ServicePort) {
	if len(i.store.HTTPRoutes.By(c, cluster.ByNamespace, namespace)) == 0 &&
		len(i.store.GRPCRoutes.By(c, cluster.ByNamespace, namespace)) == 0 {
		return nil
	}
	for _, svc := range i.store.Services.By(c, cluster.ByNamespace, namespace) {
		for _, port := range i.allPorts(c, svc) {
			if len(i.leads.Get(c, model.Attachment{Port: port}).externals) > 0 {
				out = append(out, port)
			}
		}
	}
	slices.SortFunc(out, model.ServicePort.Compare)
	return out
}
