// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package serving says in the statuses of routes, policies and Services what serves them. It joins what ingest decided
// together with the configuration and what the proxies acknowledged.
package serving

import (
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/status"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// patience is how long an answer of the proxies is awaited before a status says Pending: an edit that is acknowledged
// at once costs one write, not two.
const patience = 300 * time.Millisecond

// Search is how long the operator is given to find out which rule a rejected route table is rejected for, and to leave
// it out. Until then nothing is said: it is the fault of one route, and most likely of another one.
const Search = 5 * time.Second

// Entries writes the mesh's entries in statuses: of the parents of routes, the ancestors of policies, and the Services
// whose requests leave by an XBackend.
type Entries struct {
	*status.Writer[*ingest.Report, entriesMemory]
	acks Acknowledgements
	pods *tallies
	// refusals are of AuthorizationPolicies.
	refusals *refusals
	// keys are of AuthenticationPolicies.
	keys *keys

	mu    sync.Mutex
	links links
	// guarded are the sets of pods that a policy is for; enforced has the AuthorizationPolicies, and whether one is looked
	// at soon.
	guarded  map[model.ObjectRef]guarding
	enforced map[model.ObjectRef]bool
	awaited  awaited
}

// guarding is the sets of pods that one edition of a policy is for.
type guarding struct {
	uid        types.UID
	generation int64
	sets       []*ingest.GuardedPods
}

// entriesMemory is about one route or policy.
type entriesMemory struct {
	// said is the report that the status was written about when no answer was awaited any more.
	said *ingest.Report
	// hold is of conditions that say what was true before.
	hold status.Hold
	// rejected measures how long a proxy rejects a route table that the object is part of, unsettled how long an
	// answer is awaited.
	rejected, unsettled status.Timer
}

// NewEntries returns a writer that reads and writes routes and policies through the client.
func NewEntries(c client.Client, acks Acknowledgements, log logr.Logger) *Entries {
	return newEntries(c, acks, log, cluster.New)
}

func newEntries(
	c client.Client, acks Acknowledgements, log logr.Logger, newOf func(kind string) client.Object,
) *Entries {
	e := &Entries{
		acks: acks, links: newLinks(),
		guarded: map[model.ObjectRef]guarding{}, enforced: map[model.ObjectRef]bool{}, awaited: newAwaited(),
	}
	e.pods = newTallies(acks, func(ref model.ObjectRef) { e.Touch(ref) })
	e.refusals = newRefusals(func(ref model.ObjectRef) { e.Touch(ref) })
	e.keys = newKeys()
	e.Writer = status.NewWriter(c, log, status.Kinds[*ingest.Report, entriesMemory]{
		New:     newOf,
		UID:     func(report *ingest.Report) types.UID { return report.UID },
		Render:  e.render,
		Nothing: func(report *ingest.Report) bool { return len(report.Parents) == 0 },
	})
	return e
}

// Report takes what an object's status is to say; nil where the object is gone. It does not block.
func (e *Entries) Report(ref model.ObjectRef, report *ingest.Report) {
	e.link(ref, report)
	if report == nil {
		e.Forget(ref)
		return
	}
	e.Writer.Report(ref, func(*ingest.Report) *ingest.Report { return report })
}

// link notes which resources an object's status depends on.
func (e *Entries) link(ref model.ObjectRef, report *ingest.Report) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, unused := range e.links.remove(ref) {
		delete(e.awaited.said, unused)
	}
	e.followPods(ref, report)
	e.refusals.follow(ref, report)
	if report == nil {
		delete(e.enforced, ref)
		delete(e.awaited.waits, ref)
		return
	}
	var keys []xds.Key
	for _, p := range report.Parents {
		if _, known := e.enforced[ref]; p.Enforcement != nil && !known {
			e.enforced[ref] = false
		}
		keys = append(keys, resourcesOf(needsOf(p))...)
	}
	e.links.add(ref, keys)
}

// followPods has the pods counted that a policy is for. The lock is held.
func (e *Entries) followPods(ref model.ObjectRef, report *ingest.Report) {
	var now guarding
	if report != nil {
		now.uid, now.generation = report.UID, report.Generation
		for _, p := range report.Parents {
			if p.Enforcement != nil && p.Enforcement.Pods != nil {
				now.sets = append(now.sets, p.Enforcement.Pods)
			}
		}
	}
	before := e.guarded[ref]
	if e.guarded[ref] = now; len(now.sets) == 0 {
		delete(e.guarded, ref)
	}
	if len(before.sets)+len(now.sets) > 0 {
		e.pods.follow(ref, before.sets, now.sets, before.uid != now.uid || before.generation != now.generation)
	}
}

// Changed looks at a status again that somebody may have overwritten, or that is another object's; before is nil where
// there was none. What else was changed of an object is in the next report, if it matters.
func (e *Entries) Changed(ref model.ObjectRef, before, now client.Object) {
	if before != nil && before.GetUID() == now.GetUID() &&
		equality.Semantic.DeepEqual(parentsOf(before), parentsOf(now)) {
		return
	}
	e.TouchVersion(ref, now.GetResourceVersion())
}

// again looks at a policy after a while.
func (e *Entries) again(ref model.ObjectRef) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, enforced := e.enforced[ref]; enforced {
		e.enforced[ref] = false
	}
	e.Touch(ref)
}

// render says what is to be said, of the proxies as they are now. It waits where an answer is missing that may come any
// moment. An entry that is Programmed stays so while it is held: the object lost proxies, or got new ones, and its
// generation is still the one that they serve.
func (e *Entries) render(obj client.Object, report *ingest.Report, memory *entriesMemory) status.Plan {
	e.waits(report.Ref, true) // for an answer may come while this looks
	if left := memory.rejected.Track(tableRejected(report, e.acks), Search); left > 0 {
		return status.Plan{Wait: true, Again: left}
	}
	parents := parentsOf(obj)
	ours := e.wanted(report, parents)
	moved := memory.said != nil && moved(memory.said, report)
	waiting := slices.ContainsFunc(ours, func(p gwv1.RouteParentStatus) bool { return waits(programmedOf(p)) })
	if !waiting || memory.said == nil {
		memory.said = report
	}
	var may []status.Held
	if !moved {
		may = held(parents, ours)
	}
	plan := status.Plan{Again: memory.hold.Keep(may...)}
	unsettled := slices.ContainsFunc(ours, func(p gwv1.RouteParentStatus) bool {
		return programmedOf(p).Reason == v1alpha1.EntryReasonPending
	})
	if left := memory.unsettled.Track(unsettled, patience); left > 0 {
		plan.Wait = true
		return plan.Sooner(left)
	}
	e.waits(report.Ref, waiting || slices.ContainsFunc(ours, saysRejected))
	merge(obj, ours)
	return plan
}

// wanted are the entries as they are to be, of each parent or ancestor.
func (e *Entries) wanted(report *ingest.Report, written []gwv1.RouteParentStatus) []gwv1.RouteParentStatus {
	var out []gwv1.RouteParentStatus
	for _, p := range report.Parents {
		if p.Foreign && othersSay(written, p.Ref) {
			continue // it is another mesh's Service, and the route works there
		}
		out = append(out, gwv1.RouteParentStatus{
			ParentRef: p.Ref, ControllerName: names.MeshController,
			Conditions: append(slices.Clone(p.Conditions), e.programmed(report.Ref, p, report.Generation)),
		})
	}
	return out
}

func othersSay(written []gwv1.RouteParentStatus, ref gwv1.ParentReference) bool {
	return slices.ContainsFunc(written, func(p gwv1.RouteParentStatus) bool {
		return p.ControllerName != names.MeshController && equality.Semantic.DeepEqual(p.ParentRef, ref)
	})
}

// held are the conditions Programmed, or Enforced, that may say what they said before: answers are missing, or only
// their count is new.
func held(written, ours []gwv1.RouteParentStatus) []status.Held {
	out := make([]status.Held, 0, len(ours))
	for _, p := range ours {
		now := programmedOf(p)
		n := slices.IndexFunc(written, func(w gwv1.RouteParentStatus) bool {
			return w.ControllerName == names.MeshController && equality.Semantic.DeepEqual(w.ParentRef, p.ParentRef)
		})
		if n >= 0 {
			out = append(out, status.Held{Now: now, Written: written[n].Conditions, May: func(was *metav1.Condition) bool {
				return waits(now) || now.Status == metav1.ConditionTrue && now.Message != was.Message ||
					now.Reason == v1alpha1.PolicyReasonPodsNotCaptured // a pod says so a moment after it is
			}})
		}
	}
	return out
}

func programmedOf(p gwv1.RouteParentStatus) *metav1.Condition {
	if c := meta.FindStatusCondition(p.Conditions, v1alpha1.PolicyConditionEnforced); c != nil {
		return c
	}
	return meta.FindStatusCondition(p.Conditions, v1alpha1.EntryConditionProgrammed)
}

// moved tells whether other waypoints than before serve a route.
func moved(old, now *ingest.Report) bool {
	same := func(a, b ingest.ParentReport) bool {
		return a.Waypoint == b.Waypoint && slices.Equal(guardingOf(a), guardingOf(b))
	}
	return !slices.EqualFunc(old.Parents, now.Parents, same)
}

// guardingOf are the waypoints that carry out a policy.
func guardingOf(p ingest.ParentReport) (out []types.NamespacedName) {
	if p.Enforcement != nil {
		for _, w := range p.Enforcement.Waypoints {
			out = append(out, w.Gateway)
		}
	}
	return out
}

// parentsOf are the entries of a status, those of a policy as if they were a route's.
func parentsOf(obj client.Object) []gwv1.RouteParentStatus {
	switch o := obj.(type) {
	case *gwv1.HTTPRoute:
		return o.Status.Parents
	case *gwv1.GRPCRoute:
		return o.Status.Parents
	case *gwxv1alpha1.XBackend:
		return status.UsersAsParents(o.Status.Ancestors)
	}
	if p, ok := cluster.PolicyOf(obj); ok {
		return status.AsParents(*p.Ancestors())
	}
	return nil
}

// merge puts the mesh's entries into a status.
func merge(obj client.Object, ours []gwv1.RouteParentStatus) {
	switch o := obj.(type) {
	case *gwv1.HTTPRoute:
		o.Status.Parents = status.MergeParents(o.Status.Parents, ours, names.MeshController)
	case *gwv1.GRPCRoute:
		o.Status.Parents = status.MergeParents(o.Status.Parents, ours, names.MeshController)
	case *gwxv1alpha1.XBackend:
		o.Status.Ancestors = status.MergeUsers(o.Status.Ancestors, ours, names.MeshController)
	default:
		if p, ok := cluster.PolicyOf(obj); ok {
			all := p.Ancestors()
			*all = status.MergeAncestors(*all, status.AsAncestors(ours), names.MeshController)
		}
	}
}
