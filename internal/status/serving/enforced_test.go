// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/status"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// guardLedger is what proxies made of the guards of pods, and of all else. It counts how often it is asked.
type guardLedger struct {
	mu    sync.Mutex
	of    map[xds.Key][]xds.ProxyAck
	asked int
}

func (l *guardLedger) State(k xds.Key) xds.ResourceState {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return xds.ResourceState{Version: "v", Proxies: l.of[k]}
}

// says stores what the proxy of a node says of a pod's guard; no state: it isn't connected.
func (l *guardLedger) says(pod int, state xds.AckState, version string) xds.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := guardOf(podOf(pod))
	delete(l.of, k)
	if state != "" {
		l.of[k] = []xds.ProxyAck{{
			Proxy: xds.Proxy{Pod: "fairway-system/" + podOf(pod).Node}, State: state, Version: version, Error: "its own words",
		}}
	}
	return k
}

// podOf is pod p<n> of namespace shop, two of which share a node.
func podOf(n int) ingest.GuardedPod {
	return ingest.GuardedPod{Pod: podName(n), Node: fmt.Sprint("n", n/2)}
}

func podName(n int) types.NamespacedName {
	return types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("p", n)}
}

// podsOf is a set of as many pods.
func podsOf(name string, n int) *ingest.GuardedPods {
	out := &ingest.GuardedPods{Name: name}
	for p := range n {
		out.Captured = append(out.Captured, podOf(p))
	}
	return out
}

func newGuardLedger(pods int) *guardLedger {
	l := &guardLedger{of: map[xds.Key][]xds.ProxyAck{}}
	for p := range pods {
		l.says(p, xds.Acked, "v")
	}
	return l
}

func policyReport(ref model.ObjectRef, e *ingest.Enforcement) *ingest.Report {
	return &ingest.Report{Ref: ref, Parents: []ingest.ParentReport{{Enforcement: e}}}
}

func TestEnforcedCountsPodsAndProxies(t *testing.T) {
	const never = "; kubelet's probes and the mesh's own proxies are never refused."
	port := func(n uint16) model.ServicePort {
		return model.ServicePort{Namespace: "shop", Service: "reviews", Port: n}
	}
	waypoint := ingest.GuardingWaypoint{
		Gateway: types.NamespacedName{Namespace: "shop", Name: "waypoint"}, Tables: []model.ServicePort{port(80)}, TCP: true,
	}
	scope := catalogue.WaypointScope(waypoint.Gateway)
	table, tcp := scope.Key(xds.TypeRoute, "service/shop/reviews/80"), scope.Key(xds.TypeExtension, names.AuthorizationTCP)
	coming := waypoint
	coming.Pending = true
	ledger := func(change func(*guardLedger)) *guardLedger {
		l := newGuardLedger(4)
		for _, k := range []xds.Key{catalogue.Serving(waypoint.Gateway), table, tcp} {
			l.of[k] = []xds.ProxyAck{ack("shop/w-0", xds.Acked), ack("shop/w-1", xds.Acked)}
		}
		change(l)
		return l
	}
	as := func(change func(*ingest.Enforcement)) *ingest.Enforcement {
		e := &ingest.Enforcement{Pods: podsOf("shop", 4)}
		change(e)
		return e
	}
	nodes := as(func(*ingest.Enforcement) {})
	both := as(func(e *ingest.Enforcement) { e.Waypoints = []ingest.GuardingWaypoint{waypoint} })
	nothing := func(*guardLedger) {}
	for name, c := range map[string]struct {
		enforcement *ingest.Enforcement
		ledger      *guardLedger
		status      metav1.ConditionStatus
		reason      string
		text        string
	}{
		"all pods": {
			nodes, ledger(nothing), "True", v1alpha1.PolicyReasonEnforced, "Enforced for 4 of 4 pods on 2 nodes; " +
				"default now deny: 4 pods let in only connections that an ALLOW policy of level Network matches" + never,
		},
		"pods and waypoint": {
			both, ledger(nothing), "True", v1alpha1.PolicyReasonEnforced,
			"Enforced for 4 of 4 pods on 2 nodes, and by 2/2 proxies of waypoint shop/waypoint; ",
		},
		"a denial changes no default": {
			as(func(e *ingest.Enforcement) { e.Deny = true }), ledger(nothing), "True", v1alpha1.PolicyReasonEnforced,
			"2 nodes; connections that a rule matches are refused" + never,
		},
		"requests": {
			as(func(e *ingest.Enforcement) { e.Application = true }), ledger(nothing), "True", v1alpha1.PolicyReasonEnforced,
			"only requests get in that an ALLOW policy of level Application matches" + never,
		},
		"no pods yet": {
			as(func(e *ingest.Enforcement) { e.Pods = podsOf("shop", 0) }), ledger(nothing), "True",
			v1alpha1.PolicyReasonEnforced, "Enforced from the start for what comes: there is nothing to guard now; default now",
		},
		"one pod's node is behind": {
			nodes, ledger(func(l *guardLedger) { l.says(3, xds.Pending, "older") }), "False", v1alpha1.PolicyReasonPending,
			"Enforced for 3 of 4 pods on 2 nodes, but the proxy of node n1 may still let into pod shop/p3 whom it did before.",
		},
		"a node that isn't connected counts for nothing": {
			nodes, ledger(func(l *guardLedger) { l.says(2, "", "") }), "False", v1alpha1.PolicyReasonPending,
			"but the proxy of node n1 may still let into pod shop/p2",
		},
		"a new pod is closed until its guard is there": {
			nodes, ledger(func(l *guardLedger) { l.says(2, xds.Pending, "") }), "True", v1alpha1.PolicyReasonEnforced,
			"Enforced for 3 of 4 pods on 2 nodes (the proxies of 1 more don't know yet who may come in, and let nobody in); ",
		},
		"a new pod's proxy was sent another guard": {
			nodes, ledger(func(l *guardLedger) { l.of[l.says(2, xds.Pending, "")][0].Moving = true }), "False",
			v1alpha1.PolicyReasonPending, "but the proxy of node n1 may still let into pod shop/p2",
		},
		"a pod's guard is rejected": {
			nodes, ledger(func(l *guardLedger) { l.says(2, xds.Rejected, "older") }), "False",
			v1alpha1.PolicyReasonProxyRejected, "Proxy fairway-system/n1 rejects configuration of a filter " +
				"authorization/shop/p2 and keeps the last good version: its own words.",
		},
		"a new pod's guard is rejected": {
			nodes, ledger(func(l *guardLedger) { l.says(2, xds.Rejected, "") }), "False", v1alpha1.PolicyReasonProxyRejected,
			"and lets nobody in, for it has no good version: its own words.",
		},
		"the waypoint's table is behind": {
			both, ledger(func(l *guardLedger) { l.of[table][1].State = xds.Pending }), "False", v1alpha1.PolicyReasonPending,
			"by 1/2 proxies of waypoint shop/waypoint, but 1 proxy of waypoint shop/waypoint may still decide as before.",
		},
		"the waypoint's TCP ports are behind": {
			both, ledger(func(l *guardLedger) { l.of[tcp] = l.of[tcp][:1] }), "False", v1alpha1.PolicyReasonPending,
			"1 proxy of waypoint shop/waypoint may still decide as before.",
		},
		"the waypoint rejects": {
			both, ledger(func(l *guardLedger) { l.of[tcp][0].State = xds.Rejected }), "False",
			v1alpha1.PolicyReasonProxyRejected, "Proxy shop/w-0 rejects configuration of a filter authorization/tcp",
		},
		"the waypoint is away": {
			both, ledger(func(l *guardLedger) { delete(l.of, catalogue.Serving(waypoint.Gateway)) }), "False",
			v1alpha1.PolicyReasonPending, "but no proxy of waypoint shop/waypoint is ready, so nobody gets in through it",
		},
		"pods that nothing guards": {
			as(func(e *ingest.Enforcement) {
				for n := range 7 {
					e.Pods.Uncaptured = append(e.Pods.Uncaptured, podName(10+n))
				}
			}), ledger(nothing), "False", v1alpha1.PolicyReasonPodsNotCaptured,
			"7 pods aren't captured, so nothing guards them: shop/p10, shop/p11, shop/p12, shop/p13, shop/p14, 2 more; default",
		},
		"a port without requests": {
			as(func(e *ingest.Enforcement) {
				why := ingest.Verdict{Reason: v1alpha1.PolicyReasonNotRequests, Message: "it is declared TCP"}
				e.Application, e.Closed = true, []ingest.ClosedPort{
					{Port: port(5432), Verdict: why}, {Port: port(5433), Verdict: why},
				}
			}), ledger(nothing), "False", v1alpha1.PolicyReasonNotRequests,
			"nobody gets in at port 5432 of Service shop/reviews, port 5433 of Service shop/reviews, for it is declared TCP; ",
		},
		"no waypoint": {
			as(func(e *ingest.Enforcement) {
				e.Application, e.Closed = true, []ingest.ClosedPort{{
					Port:    port(80),
					Verdict: ingest.Verdict{Reason: v1alpha1.PolicyReasonNoWaypoint, Message: "no waypoint serves it"},
				}}
			}), ledger(nothing), "False", v1alpha1.PolicyReasonNoWaypoint,
			"nobody gets in at port 80 of Service shop/reviews, for no waypoint serves it; ",
		},
		"a dry run": {
			as(func(e *ingest.Enforcement) { e.DryRun = true }), ledger(nothing), "False", v1alpha1.PolicyReasonDryRun,
			"Tried for 4 of 4 pods on 2 nodes; would have refused nobody since 20",
		},
		"a dry run, and a port of which it isn't known what it speaks": {
			as(func(e *ingest.Enforcement) {
				why := ingest.Verdict{Reason: v1alpha1.PolicyReasonNotRequests, Message: "nobody has said what it speaks"}
				e.Application, e.DryRun, e.Closed = true, true, []ingest.ClosedPort{
					{Port: port(3306), Open: true, Verdict: why},
					{Port: port(5432), Verdict: ingest.Verdict{Message: "it is declared TCP"}},
				}
			}), ledger(nothing), "False", v1alpha1.PolicyReasonDryRun,
			"nothing is tried at port 3306 of Service shop/reviews, for nobody has said what it speaks; nobody would get in " +
				"at port 5432 of Service shop/reviews, for it is declared TCP",
		},
		"a dry run that some don't try yet": {
			as(func(e *ingest.Enforcement) { e.DryRun = true }),
			ledger(func(l *guardLedger) { l.says(0, xds.Pending, "older") }), "False", v1alpha1.PolicyReasonPending,
			"Tried for 3 of 4",
		},
		"a dry run at a waypoint that callers don't go to yet": {
			as(func(e *ingest.Enforcement) { e.DryRun, e.Waypoints = true, []ingest.GuardingWaypoint{coming} }),
			ledger(nothing), "False", v1alpha1.PolicyReasonPending,
			"by 2/2 proxies of waypoint shop/waypoint, but callers go past waypoint shop/waypoint until its Gateway is " +
				"fairway.dev/Established.",
		},
		"a dry run at a waypoint that has not started yet": {
			as(func(e *ingest.Enforcement) { e.DryRun, e.Waypoints = true, []ingest.GuardingWaypoint{coming} }),
			ledger(func(l *guardLedger) { delete(l.of, catalogue.Serving(waypoint.Gateway)) }), "False",
			v1alpha1.PolicyReasonPending, "but no proxy of waypoint shop/waypoint is ready, so nothing is tried there",
		},
		"a dry run at a waypoint that is away": {
			as(func(e *ingest.Enforcement) { e.DryRun, e.Waypoints = true, []ingest.GuardingWaypoint{waypoint} }),
			ledger(func(l *guardLedger) { delete(l.of, catalogue.Serving(waypoint.Gateway)) }), "False",
			v1alpha1.PolicyReasonPending, "but no proxy of waypoint shop/waypoint is ready, so nobody gets in through it",
		},
		"a waypoint that callers don't go to yet": {
			as(func(e *ingest.Enforcement) { e.Waypoints = []ingest.GuardingWaypoint{coming} }), ledger(nothing), "True",
			v1alpha1.PolicyReasonEnforced,
			"callers are refused until Gateway shop/waypoint is fairway.dev/Established; default now deny",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newEntries(nil, c.ledger, logr.Discard(), nil)
			report := policyReport(model.ObjectRef{Name: "a"}, c.enforcement)
			r.link(report.Ref, report)
			got := r.programmed(report.Ref, report.Parents[0], 7)
			require.Equal(t, v1alpha1.PolicyConditionEnforced, got.Type)
			require.Equal(t, [2]string{string(c.status), c.reason}, [2]string{string(got.Status), got.Reason}, got.Message)
			require.Contains(t, got.Message, c.text)
			require.Equal(t, int64(7), got.ObservedGeneration)
		})
	}
	refused := ingest.ParentReport{
		Enforcement: &ingest.Enforcement{}, Unprogrammed: &ingest.Verdict{Reason: "TargetNotFound", Message: "not accepted"},
	}
	got := newEntries(nil, ledger(nothing), logr.Discard(), nil).programmed(model.ObjectRef{}, refused, 7)
	require.Equal(t, []string{"Enforced", "False", "TargetNotFound"}, []string{got.Type, string(got.Status), got.Reason})
}

// TestAnAnswerCostsALookAtOnePod: of 5,000 pods, which hundred policies are for.
func TestAnAnswerCostsALookAtOnePod(t *testing.T) {
	const pods, policies = 5000, 100
	l := newGuardLedger(pods)
	touched := map[model.ObjectRef]int{}
	tallies := newTallies(l, func(ref model.ObjectRef) { touched[ref]++ })
	set := podsOf("shop", pods)
	for n := range policies {
		tallies.follow(model.ObjectRef{Name: fmt.Sprint(n)}, nil, []*ingest.GuardedPods{set}, true)
	}
	require.Equal(t, pods, l.asked, "each pod once, and not for each policy")
	require.Equal(t, podCount{pods: pods, nodes: pods / 2, guarded: pods}, tallies.counted(set))

	l.asked = 0
	tallies.acknowledged(l.says(7, xds.Pending, "older"))
	require.Equal(t, 1, l.asked)
	require.Equal(t, podCount{pods: pods, nodes: pods / 2, guarded: pods - 1, late: podOf(7)}, tallies.counted(set))
	require.Empty(t, touched, "more may come")
	tallies.acknowledged(l.says(7, xds.Acked, "v"))
	require.Len(t, touched, policies, "the last answer is told at once")
	tallies.acknowledged(l.says(7, xds.Acked, "v"))
	require.Equal(t, 1, touched[model.ObjectRef{Name: "7"}], "nothing new is told to nobody")
	tallies.acknowledged(l.says(8, xds.Rejected, "older"))
	require.Equal(t, 2, touched[model.ObjectRef{Name: "7"}], "and so is a rejection")
	require.Contains(t, tallies.counted(set).rejection, "authorization/shop/p8")

	l.asked = 0
	more := podsOf("shop", pods+1)
	more.Captured = more.Captured[1:]
	tallies.follow(model.ObjectRef{Name: "0"}, []*ingest.GuardedPods{set}, []*ingest.GuardedPods{more}, false)
	require.Equal(t, 1, l.asked, "one pod is new")
	require.Equal(t, pods, tallies.counted(more).pods, "and one is gone")
	for n := range policies {
		tallies.follow(model.ObjectRef{Name: fmt.Sprint(n)}, []*ingest.GuardedPods{more}, nil, false)
	}
	require.Empty(t, tallies.of, "nothing is left")
	require.Empty(t, tallies.with)
}

// TestAnEditIsNotEnforcedByWhatProxiesSaidBefore, though the report may come before the word that they have yet to
// answer: of an edit, and of a policy for pods that another is for already. Answers to another policy's edit are no
// reason to look at all pods again.
func TestAnEditIsNotEnforcedByWhatProxiesSaidBefore(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.guards = newGuardLedger(3)
		report := func(generation int64) {
			w.writer.Report(w.ref, &ingest.Report{Ref: w.ref, UID: "1", Generation: generation, Parents: []ingest.ParentReport{
				{Ref: w.parent, Enforcement: &ingest.Enforcement{Pods: podsOf("bookshop", 3)}},
			}})
			synctest.Wait()
		}
		generation := func() int64 {
			return meta.FindStatusCondition(w.status()[0].Conditions, v1alpha1.PolicyConditionEnforced).ObservedGeneration
		}
		report(1)
		require.EqualValues(t, 1, generation())
		asked := w.book.guards.asked
		report(1)
		require.Equal(t, asked, w.book.guards.asked, "nothing was edited")

		sent := w.book.guards.says(1, xds.Pending, "older")
		report(2)
		require.EqualValues(t, 1, generation(), "one has yet to answer")
		w.writer.Acknowledged(sent)
		synctest.Wait()
		require.EqualValues(t, 1, generation())
		w.writer.Acknowledged(w.book.guards.says(1, xds.Acked, "v"))
		synctest.Wait()
		require.EqualValues(t, 2, generation())

		other := model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: "bookshop", Name: "other"}
		w.book.guards.says(2, xds.Pending, "older")
		w.writer.link(other, &ingest.Report{Ref: other, UID: "3", Generation: 1, Parents: []ingest.ParentReport{
			{Ref: w.parent, Enforcement: &ingest.Enforcement{Pods: podsOf("bookshop", 3)}},
		}})
		require.Equal(t, 2, w.writer.pods.counted(podsOf("bookshop", 3)).guarded)
	})
}

// TestAnswersOfWaypointsAreGathered: a policy may need hundreds of route tables, each of several proxies.
func TestAnswersOfWaypointsAreGathered(t *testing.T) {
	inWorld(t, func(w *world) {
		port := func(n int) model.ServicePort {
			return model.ServicePort{Namespace: "bookshop", Service: "reviews", Port: uint16(n)}
		}
		e := &ingest.Enforcement{Waypoints: []ingest.GuardingWaypoint{{Gateway: waypoint}}}
		for n := range 100 {
			e.Waypoints[0].Tables = append(e.Waypoints[0].Tables, port(n))
		}
		key := func(n int) xds.Key { return scope.Key(xds.TypeRoute, fmt.Sprint("service/bookshop/reviews/", n)) }
		for n := range 100 {
			w.book.say("a", key(n), xds.Pending)
		}
		w.report(ingest.ParentReport{Ref: w.parent, Conditions: w.served().Conditions, Enforcement: e})
		time.Sleep(time.Second)
		reads := w.reads.Load()
		for n := range 100 {
			w.book.say("a", key(n), xds.Acked)
			w.writer.Acknowledged(key(n))
			synctest.Wait()
		}
		time.Sleep(calm)
		synctest.Wait()
		require.LessOrEqual(t, w.reads.Load()-reads, int32(2))
		require.True(t, meta.IsStatusConditionTrue(w.status()[0].Conditions, v1alpha1.PolicyConditionEnforced))
	})
}

// TestEnforcedKeepsCalm while pods come and go: what guards them is there before anybody gets in. What is wrong for
// longer than a moment is said, and a rejection at once.
func TestEnforcedKeepsCalm(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.guards = newGuardLedger(4)
		says := func(status metav1.ConditionStatus, reason, text string) {
			t.Helper()
			c := meta.FindStatusCondition(w.status()[0].Conditions, v1alpha1.PolicyConditionEnforced)
			require.Equal(t, [2]string{string(status), reason}, [2]string{string(c.Status), c.Reason}, c.Message)
			require.Contains(t, c.Message, text)
		}
		pods := func(n int, uncaptured ...int) {
			e := &ingest.Enforcement{Pods: podsOf("bookshop", n)}
			for _, p := range uncaptured {
				e.Pods.Uncaptured = append(e.Pods.Uncaptured, podName(p))
			}
			w.report(ingest.ParentReport{Ref: w.parent, Conditions: w.served().Conditions, Enforcement: e})
		}
		answer := func(pod int, state xds.AckState, version string) {
			w.writer.Acknowledged(w.book.guards.says(pod, state, version))
			synctest.Wait()
		}
		pods(2)
		says("True", v1alpha1.PolicyReasonEnforced, "2 of 2 pods")

		pods(2, 2)                      // it has an address, and does not say yet that it is captured
		w.book.guards.says(2, "", "")   // it does, before its node's proxy has asked
		pods(3)                         //
		answer(2, xds.Pending, "")      // it has asked
		answer(2, xds.Acked, "v")       //
		answer(0, xds.Pending, "older") // another policy changes
		time.Sleep(status.HoldTime / 2)
		answer(0, xds.Acked, "v")
		require.EqualValues(t, 1, w.writes.Load())
		time.Sleep(2 * status.HoldTime)
		says("True", v1alpha1.PolicyReasonEnforced, "3 of 3 pods")
		require.EqualValues(t, 2, w.writes.Load(), "the count is told later")

		pods(3, 3)
		time.Sleep(2 * status.HoldTime)
		says("False", v1alpha1.PolicyReasonPodsNotCaptured, "1 pod isn't captured, so nothing guards it: shop/p3")
		pods(4)
		says("True", v1alpha1.PolicyReasonEnforced, "4 of 4 pods")
		answer(3, "", "")
		time.Sleep(2 * status.HoldTime)
		says("False", v1alpha1.PolicyReasonPending, "node n1 may still let into pod shop/p3")
		answer(3, xds.Acked, "v")
		says("True", v1alpha1.PolicyReasonEnforced, "4 of 4 pods")
		answer(1, xds.Rejected, "older")
		says("False", v1alpha1.PolicyReasonProxyRejected, "its own words")
	})
}

// testAuthorizationPolicyOnARealAPIServer: it is Enforced once acknowledged, and keeps what others say of it.
func testAuthorizationPolicyOnARealAPIServer(t *testing.T, cfg *rest.Config) {
	s := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(s))
	c, err := client.New(cfg, client.Options{Scheme: s})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	policy := &v1alpha1.AuthorizationPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "nobody"},
		Spec: v1alpha1.AuthorizationPolicySpec{
			TargetRefs:       []v1alpha1.AuthorizationTarget{{Kind: "Namespace"}},
			EnforcementLevel: v1alpha1.EnforcementLevelNetwork, Action: v1alpha1.ActionAllow,
		},
	}
	require.NoError(t, c.Create(ctx, policy))
	namespace := gwv1.ParentReference{Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Namespace")), Name: "bookshop"}
	accepted := metav1.Condition{
		Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1, LastTransitionTime: metav1.Unix(1000, 0),
	}
	others := gwv1.PolicyAncestorStatus{
		AncestorRef: namespace, ControllerName: "example.org/other", Conditions: []metav1.Condition{accepted},
	}
	policy.Status.Ancestors = []gwv1.PolicyAncestorStatus{others}
	require.NoError(t, c.Status().Update(ctx, policy))

	l := newGuardLedger(3)
	l.says(1, xds.Pending, "older")
	w := NewEntries(c, l, logr.Discard())
	go func() { _ = w.Start(ctx) }()
	ref := model.ObjectRef{Kind: "AuthorizationPolicy", Namespace: "bookshop", Name: "nobody"}
	report := func(e *ingest.Enforcement) {
		w.Report(ref, &ingest.Report{Ref: ref, UID: policy.UID, Generation: 1, Parents: []ingest.ParentReport{
			{Ref: namespace, Conditions: []metav1.Condition{accepted}, Enforcement: e},
		}})
	}
	is := func(status metav1.ConditionStatus, reason, text string) func() bool {
		return func() bool {
			require.NoError(t, c.Get(ctx, client.ObjectKeyFromObject(policy), policy))
			require.Equal(t, others, policy.Status.Ancestors[0])
			if len(policy.Status.Ancestors) < 2 {
				return false
			}
			require.True(t, meta.IsStatusConditionTrue(policy.Status.Ancestors[1].Conditions, "Accepted"))
			require.Nil(t, meta.FindStatusCondition(policy.Status.Ancestors[1].Conditions, v1alpha1.EntryConditionProgrammed))
			e := meta.FindStatusCondition(policy.Status.Ancestors[1].Conditions, v1alpha1.PolicyConditionEnforced)
			return e.Status == status && e.Reason == reason && strings.Contains(e.Message, text)
		}
	}
	report(&ingest.Enforcement{Pods: podsOf("bookshop", 2)})
	eventually.True(t, "pending", is(metav1.ConditionFalse, v1alpha1.PolicyReasonPending, "1 of 2 pods"))
	w.Acknowledged(l.says(1, xds.Acked, "v"))
	eventually.True(t, "enforced", is(metav1.ConditionTrue, v1alpha1.PolicyReasonEnforced, "2 of 2 pods on 1 node;"))

	w.Acknowledged(l.says(0, xds.Rejected, "older"))
	eventually.True(t, "rejected", is(metav1.ConditionFalse, v1alpha1.PolicyReasonProxyRejected, "its own words"))
	w.Report(ref, &ingest.Report{Ref: ref, UID: policy.UID, Generation: 1})
	eventually.True(t, "taken back", func() bool {
		require.NoError(t, c.Get(ctx, client.ObjectKeyFromObject(policy), policy))
		return w.Cleared() && len(policy.Status.Ancestors) == 1
	})
}
