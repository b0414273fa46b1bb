// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// use of an extension is by what routes attach to of one Service.
type use struct {
	service cluster.Key
	routes  []string
	at      []model.Attachment
	refused *Verdict
	// rejected says that proxies reject a rule that names it, for another reason than the extension.
	rejected *Verdict
}

// rejectedFor takes in that proxies reject a rule of a route that names the extension.
func (u *use) rejectedFor(route string, r rejectedExtension) {
	v := &Verdict{
		Reason:  v1alpha1.EntryReasonProxyRejected,
		Message: fmt.Sprintf("proxies reject a rule of %s that names it: %s", route, r.text),
	}
	switch {
	case !r.blamed:
		u.rejected = cmp.Or(u.rejected, v)
	case u.refused == nil:
		v.Message = fmt.Sprintf("proxies reject %s", r.text)
		u.refused = v
	}
}

// extensionReport says of an extension for which Services it is used, and whether it is run there.
func (i *Ingest) extensionReport(c *memo.Ctx, key cluster.Key) *Report {
	e := i.extensionOf.Get(c, key)
	if e == nil {
		return nil
	}
	out := &Report{Ref: e.ref, UID: e.uid, Generation: e.generation}
	if !i.Settings.Get(c, struct{}{}).present {
		return out
	}
	uses := i.usesOf(c, e)
	if len(uses) == 0 && e.taken < policy.MostAncestors {
		out.Parents = []ParentReport{i.unused(c, e)}
	}
	for _, u := range uses[:min(len(uses), max(policy.MostAncestors-e.taken, 0))] {
		report := ParentReport{}
		refused := u.refused
		if e.bad != nil {
			refused = e.bad
		}
		if refused != nil {
			report.Unprogrammed = &Verdict{Reason: refused.Reason, Message: "the extension is not accepted"}
		} else if report.Unprogrammed = u.rejected; u.rejected == nil {
			report, _ = i.atWaypoint(c, u.at)
		}
		report.Ref = accessAncestor(policy.Object{GroupKind: policy.Service, NamespacedName: u.service})
		report.Attachments = u.at
		report.Conditions = append(report.Conditions, conditions.Judged(string(gwv1.PolicyConditionAccepted), refused,
			string(gwv1.PolicyReasonAccepted), fmt.Sprintf("Requests to Service %s that match %s go through it.", u.service,
				strings.Join(u.routes, ", ")), e.generation))
		out.Parents = append(out.Parents, report)
	}
	return out
}

// unused is what there is to say of an extension that no Service's requests go through. Nothing but the Mesh has to do
// with it then.
func (i *Ingest) unused(c *memo.Ctx, e *extension) ParentReport {
	refused := e.bad
	if refused == nil {
		refused = i.notAllowed(c, e.ref.Namespace, e.content, e.ref.Namespace)
	}
	out := ParentReport{
		Ref: gwv1.ParentReference{
			Group: new(gwv1.Group(v1alpha1.GroupVersion.Group)), Kind: new(gwv1.Kind(v1alpha1.KindMesh)), Name: names.Mesh,
		},
		Conditions: []metav1.Condition{conditions.Judged(string(gwv1.PolicyConditionAccepted), refused,
			string(gwv1.PolicyReasonAccepted), "waypoints can run it", e.generation)},
		Unprogrammed: &Verdict{Reason: v1alpha1.ExtensionReasonNotUsed, Message: fmt.Sprintf("no rule names it: name it by "+
			"a filter ExtensionRef of an HTTPRoute or GRPCRoute in namespace %s", e.ref.Namespace)},
	}
	if by := i.routesBy(c, cluster.ByExtension, e.ref.Namespace+"/"+e.ref.Name); len(by) > 0 {
		out.Unprogrammed.Message = fmt.Sprintf("%s %s names it, and is attached to no Service: see the route's conditions",
			by[0].Kind, by[0].Name)
	}
	return out
}

// usesOf an extension, by Service, sorted.
func (i *Ingest) usesOf(c *memo.Ctx, e *extension) (out []use) {
	for _, ref := range i.routesBy(c, cluster.ByExtension, e.ref.Namespace+"/"+e.ref.Name) {
		r := i.Route.Get(c, ref)
		if r == nil {
			continue
		}
		for _, p := range r.parents {
			has := i.attachedBy(c, r, p)
			why, rejected := r.rejected[e.ref.Name]
			if r.invalid != nil && !rejected || len(has) == 0 {
				continue
			}
			n := slices.IndexFunc(out, func(u use) bool { return u.service == p.service })
			if n < 0 {
				n, out = len(out), append(out, use{service: p.service})
				out[n].refused = i.unextendedIn(c, ref.Namespace, e.content, has[0].Port)
			}
			text := ref.Kind + " " + ref.Name
			if !slices.Contains(out[n].routes, text) {
				out[n].routes = append(out[n].routes, text)
			}
			if rejected {
				out[n].rejectedFor(text, why)
			}
			for _, at := range has {
				if !slices.Contains(out[n].at, at) {
					out[n].at = append(out[n].at, at)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b use) int { return byName(a.service, b.service) })
	for n := range out {
		slices.SortFunc(out[n].at, model.Attachment.Compare)
	}
	return out
}
