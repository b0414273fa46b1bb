// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// mostNamed bounds what a message names of a kind; the rest is counted.
const mostNamed = 5

// guards lists what proxies of waypoints need to carry a policy out.
func guards(e *ingest.Enforcement) (out []need) {
	for _, w := range e.Waypoints {
		n, scope := need{serving: catalogue.Serving(w.Gateway)}, catalogue.WaypointScope(w.Gateway)
		for _, p := range w.Tables {
			n.resources = append(n.resources, scope.Key(xds.TypeRoute, names.ServicePort(p.Namespace, p.Service, p.Port)))
		}
		if w.TCP {
			n.resources = append(n.resources, scope.Key(xds.TypeExtension, names.AuthorizationTCP))
		}
		if w.Authentication {
			n.resources = append(n.resources, scope.Key(xds.TypeExtension, names.FilterForm),
				scope.Key(xds.TypeExtension, names.FilterTokens))
		}
		out = append(out, n)
	}
	return out
}

// enforcement is how far all proxies are with a policy for one ancestor.
type enforcement struct {
	*ingest.Enforcement
	pods podCount
	// waypoints have a count each, in the order of the report.
	waypoints []count
	// refused says who was refused, or would have been.
	refused string
	// missing and stale say which keys of tokens proxies don't have, or have old ones of.
	missing, stale string
}

func (r *Entries) enforcement(ref model.ObjectRef, e *ingest.Enforcement) enforcement {
	out := enforcement{Enforcement: e, refused: r.refusals.say(ref, e.DryRun)}
	if e.Pods != nil {
		out.pods = r.pods.counted(e.Pods)
	}
	for _, n := range guards(e) {
		out.waypoints = append(out.waypoints, n.count(r.acks))
	}
	out.missing, out.stale = r.keys.say(e, r.acks)
	return out
}

// enforced says whether nobody gets past a policy. What may do so for a moment goes before what somebody must mend.
func (e enforcement) enforced() (is metav1.ConditionStatus, reason, message string) {
	if e.Modes != nil {
		return modes(e.Modes)
	}
	is = metav1.ConditionFalse
	if text := e.rejection(); text != "" {
		return is, v1alpha1.PolicyReasonProxyRejected, text
	}
	text := e.done()
	switch late := e.late(); {
	case late != "":
		return is, v1alpha1.PolicyReasonPending, text + ", but " + late
	case e.DryRun:
		return is, v1alpha1.PolicyReasonDryRun, sentences(text, e.refused,
			"nothing is refused because of it; set dryRun to false to enforce it", e.notGuarded(), e.closed())
	case len(e.Closed) > 0:
		reason = e.Closed[0].Reason
	case e.Pods != nil && len(e.Pods.Uncaptured) > 0:
		reason = v1alpha1.PolicyReasonPodsNotCaptured
	case e.missing != "":
		reason = v1alpha1.PolicyReasonKeysMissing
	default:
		is, reason = metav1.ConditionTrue, v1alpha1.PolicyReasonEnforced
	}
	return is, reason, sentences(text, e.notGuarded(), e.closed(), e.awaited(), e.missing, e.stale, e.refused, e.means())
}

func (e enforcement) rejection() string {
	out := e.pods.rejection
	for _, w := range e.waypoints {
		out = cmp.Or(out, w.rejection)
	}
	return out
}

// done counts who carries the policy out.
func (e enforcement) done() string {
	var parts []string
	if c := e.pods; c.pods > 0 {
		parts = append(parts, fmt.Sprintf("for %d of %s on %s", c.guarded, many(c.pods, "pod"), many(c.nodes, "node")))
	}
	for at, w := range e.Waypoints[:min(len(e.Waypoints), mostNamed)] {
		c := e.waypoints[at]
		parts = append(parts, fmt.Sprintf("by %d/%d proxies of waypoint %s", c.acked, c.serving, w.Gateway))
	}
	if n := len(e.Waypoints) - mostNamed; n > 0 {
		var rest count
		for _, c := range e.waypoints[mostNamed:] {
			rest.acked, rest.serving = rest.acked+c.acked, rest.serving+c.serving
		}
		parts = append(parts, fmt.Sprintf("by %d/%d proxies of %s more", rest.acked, rest.serving, many(n, "waypoint")))
	}
	how := "enforced "
	if e.DryRun {
		how = "tried "
	}
	if len(parts) == 0 {
		return how + "from the start for what comes: there is nothing to guard now"
	}
	out := how + enumerate(parts)
	if n := e.pods.closed; n > 0 {
		out += fmt.Sprintf(" (the proxies of %d more don't know yet who may come in, and let nobody in)", n)
	}
	return out
}

// late says who may still decide by what was before; "" if nobody.
func (e enforcement) late() string {
	if c := e.pods; !c.all() {
		return fmt.Sprintf("the proxy of node %s may still let into pod %s whom it did before", c.late.Node, c.late.Pod)
	}
	for at, c := range e.waypoints {
		gateway, past := e.Waypoints[at].Gateway, e.DryRun && e.Waypoints[at].Pending
		switch {
		case c.serving == 0 && past:
			return fmt.Sprintf(
				"no proxy of waypoint %s is ready, so nothing is tried there: see the conditions of its Gateway", gateway)
		case c.serving == 0:
			return fmt.Sprintf(
				"no proxy of waypoint %s is ready, so nobody gets in through it: see the conditions of its Gateway", gateway)
		case c.acked < c.serving:
			return fmt.Sprintf("%s of waypoint %s may still decide as before", many(c.serving-c.acked, "proxy"), gateway)
		case past:
			return fmt.Sprintf("callers go past waypoint %s until its Gateway is %s", gateway,
				v1alpha1.GatewayConditionEstablished)
		}
	}
	return ""
}

// awaited says at which waypoint callers don't arrive yet, whom the pods refuse meanwhile.
func (e enforcement) awaited() string {
	for _, w := range e.Waypoints {
		if w.Pending {
			return fmt.Sprintf("callers are refused until Gateway %s is %s", w.Gateway, v1alpha1.GatewayConditionEstablished)
		}
	}
	return ""
}

// means says what the policy changes.
func (e enforcement) means() string {
	what, level := "connections", v1alpha1.EnforcementLevelNetwork
	if e.Application {
		what, level = "requests", v1alpha1.EnforcementLevelApplication
	}
	out := what + " that a rule matches are refused"
	switch {
	case e.Means != "":
		out = e.Means
	case !e.Deny:
		out = fmt.Sprintf("default now deny: only %s get in that an ALLOW policy of level %s matches", what, level)
		if n := e.pods.pods; n > 0 && !e.Application {
			out = fmt.Sprintf("default now deny: %s in only %s that an ALLOW policy of level %s matches",
				plural(n, "pod lets", "pods let"), what, level)
		}
	}
	return out + "; kubelet's probes and the mesh's own proxies are never refused"
}

// notGuarded names the pods that nothing guards.
func (e enforcement) notGuarded() string {
	if e.Pods == nil || len(e.Pods.Uncaptured) == 0 {
		return ""
	}
	all := e.Pods.Uncaptured
	return fmt.Sprintf("%s: %s",
		plural(len(all), "pod isn't captured, so nothing guards it", "pods aren't captured, so nothing guards them"),
		list(all, types.NamespacedName.String))
}

// closed names the ports at which pods let nobody in, and why.
func (e enforcement) closed() string {
	var parts []string
	who := func(p ingest.ClosedPort) string {
		switch {
		case p.Open:
			return "nothing is tried"
		case e.DryRun:
			return "nobody would get in"
		}
		return "nobody gets in"
	}
	for rest := e.Closed; len(rest) > 0; {
		why := rest[0].Verdict
		n := slices.IndexFunc(rest, func(p ingest.ClosedPort) bool { return p.Verdict != why })
		if n < 0 {
			n = len(rest)
		}
		parts = append(parts, fmt.Sprintf("%s at %s, for %s", who(rest[0]), list(rest[:n], func(p ingest.ClosedPort) string {
			return fmt.Sprintf("port %d of Service %s", p.Port.Port, p.Port.ServiceName())
		}), why.Message))
		rest = rest[n:]
	}
	return sentences(parts...)
}

// sentences joins what there is to say.
func sentences(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}

func enumerate(parts []string) string {
	if n := len(parts) - 1; n > 0 {
		return strings.Join(parts[:n], ", ") + ", and " + parts[n]
	}
	return parts[0]
}

func list[T any](all []T, name func(T) string) string {
	var out []string
	for _, o := range all[:min(len(all), mostNamed)] {
		out = append(out, name(o))
	}
	if n := len(all) - mostNamed; n > 0 {
		out = append(out, fmt.Sprintf("%d more", n))
	}
	return strings.Join(out, ", ")
}

func many(n int, what string) string {
	plurals := map[string]string{"proxy": "proxies"}
	return plural(n, what, cmp.Or(plurals[what], what+"s"))
}

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
