// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
)

// maxParallel bounds the port-forwards at a time.
const maxParallel = 8

// connected is a proxy and the operator replica that it is connected to.
type connected struct {
	introspect.Proxy
	operator string
}

// readProxies asks all operator replicas and compares with the proxies that there should be.
func (k *collector) readProxies(ctx context.Context) {
	operators := k.operator.running()
	var streams []connected
	var failures map[types.NamespacedName]error
	// Ends by itself; what it found last counts.
	_ = wait.PollUntilContextTimeout(ctx, settleStep, settleTime, true, func(ctx context.Context) (bool, error) {
		streams, failures = k.askOperators(ctx, operators)
		return settled(streams), nil
	})
	for _, o := range k.operator.ready { // that the others aren't ready has been said
		if err := failures[o]; err != nil {
			k.unknown("operator %s could not be queried for its proxies: %s", o, plainly(err))
		}
	}
	if k.unread[whatPods] {
		return // neither which proxies there are nor whom to ask is known
	}
	k.report.Proxies = []proxyReport{}
	k.compare(streams, len(failures) > 0 && !k.operator.down)
	if k.operator.down {
		k.judgeOrphans()
		return
	}
	k.askDisconnected(ctx)
	k.judgeProxies()
}

// judgeOrphans says once of all proxies what follows from that no operator runs.
func (k *collector) judgeOrphans() {
	var all []string
	for _, r := range k.report.Proxies {
		if r.State == stateDisconnected && !r.unlisted {
			all = append(all, r.Pod)
		}
	}
	switch len(all) {
	case 0:
	case 1:
		k.problem(proxyCutOff, "Pod "+all[0], "proxy %s has no operator to connect to: it keeps its last configuration and "+
			"gets no updates", all[0])
	default:
		k.problem(proxyCutOff, "", "%d proxies have no operator to connect to (%s): they keep their last configuration and "+
			"get no updates", len(all), enumerate(all))
	}
}

// askDisconnected asks the agents of proxies without a stream why they have none.
func (k *collector) askDisconnected(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(maxParallel)
	for i := range k.report.Proxies {
		r := &k.report.Proxies[i]
		if r.State != stateDisconnected {
			continue
		}
		g.Go(func() error {
			namespace, name, _ := strings.Cut(r.Pod, "/")
			var agent introspect.Agent
			switch err := getJSON(ctx, k.reach, types.NamespacedName{Namespace: namespace, Name: name}, introspect.PathAgent,
				&agent); {
			case err != nil:
				r.dumb = true
				r.Reason = "its agent could not be queried: " + err.Error()
			case agent.Operator.Error != "":
				r.Reason = agent.Operator.Error
			case agent.Operator.Connected:
				r.Reason = "its agent has just connected"
			}
			return nil
		})
	}
	_ = g.Wait() // its functions return no errors
}

func settled(streams []connected) bool {
	for _, s := range streams {
		if _, pending, _ := s.Counts(); pending > 0 {
			return false
		}
	}
	return true
}

func (k *collector) askOperators(
	ctx context.Context, operators []types.NamespacedName,
) ([]connected, map[types.NamespacedName]error) {
	var (
		mu       sync.Mutex
		streams  []connected
		failures = map[types.NamespacedName]error{}
		g        errgroup.Group
	)
	g.SetLimit(maxParallel)
	for _, o := range operators {
		g.Go(func() error {
			var answer introspect.Proxies
			err := getJSON(ctx, k.reach, o, introspect.PathProxies, &answer)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failures[o] = err
			}
			for _, p := range answer.Proxies {
				streams = append(streams, connected{p, o.String()})
			}
			return nil
		})
	}
	_ = g.Wait() // its functions return no errors
	return streams, failures
}

// compare joins the pods that are proxies with the streams that there are. partial: some replica was not asked.
func (k *collector) compare(streams []connected, partial bool) {
	byPod := map[string]connected{}
	for _, s := range streams {
		if old, ok := byPod[s.Pod]; !ok || s.Connected.After(old.Connected) {
			byPod[s.Pod] = s
		}
	}
	for i := range k.pods {
		p := &k.pods[i]
		if p.Status.Phase != corev1.PodRunning || !k.isNodeProxy(p) && !k.isWaypoint(p) {
			continue // one that doesn't run is told of with its node or waypoint
		}
		name := p.Namespace + "/" + p.Name
		s, ok := byPod[name]
		delete(byPod, name)
		r := proxyReport{Pod: name, Node: p.Spec.NodeName, State: stateDisconnected, unready: !podReady(p)}
		switch {
		case ok:
			r = reportOf(s)
		case partial:
			r.State = stateUnknown
		}
		k.report.Proxies = append(k.report.Proxies, r)
	}
	// Streams of pods that the list above missed (just started, or on their way out) are shown and not judged.
	for _, s := range byPod {
		r := reportOf(s)
		r.unlisted = true
		k.report.Proxies = append(k.report.Proxies, r)
	}
	slices.SortFunc(k.report.Proxies,
		func(a, b proxyReport) int { return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Pod, b.Pod)) })
}

// isWaypoint tells a waypoint's pods, as the operator's Deployment makes them. Labels alone anybody may set who may
// make pods. Who may also make Gateways in a namespace can have a pod there that looks like one, but then the namespace
// has a waypoint.
func (k *collector) isWaypoint(p *corev1.Pod) bool {
	gateway := p.Labels[names.LabelGatewayName]
	if p.Labels[names.LabelComponent] != names.ComponentWaypoint || p.Labels[names.LabelManagedBy] != names.ManagedBy ||
		p.DeletionTimestamp != nil || gateway == "" || p.Spec.ServiceAccountName != names.WaypointResource(gateway) {
		return false
	}
	owner := metav1.GetControllerOf(p)
	if owner == nil || owner.Kind != "ReplicaSet" || !strings.HasPrefix(owner.Name, names.WaypointResource(gateway)+"-") {
		return false
	}
	// Where Gateways can't be read, the rest must do.
	return !k.gatewaysRead || slices.ContainsFunc(k.gateways, func(g gwv1.Gateway) bool {
		return g.Namespace == p.Namespace && g.Name == gateway && g.Spec.GatewayClassName == names.WaypointClass
	})
}

// readGateways of all namespaces, or of the one.
func (k *collector) readGateways(ctx context.Context) {
	var gateways gwv1.GatewayList
	k.list(ctx, whatGateways, &gateways)
	k.gateways, k.gatewaysRead = gateways.Items, !k.unread[whatGateways]
}

func reportOf(s connected) proxyReport {
	r := proxyReport{
		Pod: s.Pod, Scope: s.Scope, Node: s.Node, Operator: s.operator, Connected: &s.Connected,
		Types: s.Types, State: stateInSync,
	}
	switch _, pending, rejected := s.Counts(); {
	case rejected > 0:
		r.State = stateRejected
	case pending > 0:
		r.State = statePending
	}
	return r
}

// judgeProxies says what is wrong with proxies, once for all that have the same trouble.
func (k *collector) judgeProxies() {
	var cutOff, rejecting groups
	for _, r := range k.report.Proxies {
		switch {
		case r.unlisted, r.dumb && r.unready: // why it isn't ready has been said
		case r.State == stateDisconnected:
			why := ""
			if r.Reason != "" {
				why = " (" + oneLine(r.Reason) + ")"
			}
			cutOff.add(why, r.Pod)
		case r.State == statePending:
			_, pending, _ := r.counts()
			k.problem(proxyRejects, "Pod "+r.Pod, "proxy %s has not acknowledged %d resources", r.Pod, pending)
		case r.State == stateRejected:
			for _, t := range r.Types {
				for _, x := range t.Rejections {
					rejecting.add(fmt.Sprintf("%s %s: %s", t.Name, x.Resource, x.Error), r.Pod)
				}
			}
		}
	}
	for _, why := range cutOff.words {
		if all := cutOff.members[why]; len(all) == 1 {
			k.problem(proxyCutOff, "Pod "+all[0], "proxy %s is not connected to any operator%s: it keeps its last "+
				"configuration and gets no updates", all[0], why)
		} else {
			k.problem(proxyCutOff, "", "%d proxies are not connected to any operator%s: %s; they keep their last "+
				"configuration and get no updates", len(all), why, enumerate(all))
		}
	}
	for _, what := range rejecting.words {
		if all := rejecting.members[what]; len(all) == 1 {
			k.problem(proxyRejects, "Pod "+all[0], "proxy %s rejects %s", all[0], what)
		} else {
			k.problem(proxyRejects, "", "%d proxies (%s) reject %s", len(all), enumerate(all), what)
		}
	}
}
