// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// policy is what the kinds of the mesh have in common that users write for their own namespaces.
type policy interface {
	client.Object
	Ancestors() *[]gwv1.PolicyAncestorStatus
}

// readPolicies finds the policies and extensions that do less than they say.
func (k *collector) readPolicies(ctx context.Context) {
	for i := range k.policies {
		k.judgePolicy("AuthenticationPolicy", &k.policies[i])
	}
	for _, all := range []struct {
		kind, what string
		list       client.ObjectList
	}{
		{"AuthorizationPolicy", "AuthorizationPolicies", &v1alpha1.AuthorizationPolicyList{}},
		{"TrafficPolicy", "TrafficPolicies", &v1alpha1.TrafficPolicyList{}},
		{"HTTPExtension", "HTTPExtensions", &v1alpha1.HTTPExtensionList{}},
	} {
		k.list(ctx, all.what, all.list)
		_ = meta.EachListItem(all.list, func(o runtime.Object) error { // an error says that it is no list
			if p, ok := o.(policy); ok {
				k.judgePolicy(all.kind, p)
			}
			return nil
		})
	}
	slices.Sort(k.report.Policies)
	k.report.Policies = slices.Compact(k.report.Policies)
}

// judgePolicy says what the conditions of a policy complain of.
func (k *collector) judgePolicy(kind string, p policy) {
	say := func(what string) {
		k.report.Policies = append(k.report.Policies, fmt.Sprintf("%s %s: %s", kind, client.ObjectKeyFromObject(p), what))
	}
	answered := false
	for _, a := range *p.Ancestors() {
		if a.ControllerName != names.MeshController {
			continue
		}
		answered = true
		if c := complaint(slices.DeleteFunc(slices.Clone(a.Conditions), meant)); c != "" {
			say(c)
		}
	}
	if !answered && k.mesh != nil && member.Enrolled(k.namespaces[p.GetNamespace()]) {
		say(messageUnanswered)
	}
}

// meant tells whether a condition is false because the policy's author wants it so.
func meant(c metav1.Condition) bool {
	return c.Reason == v1alpha1.PolicyReasonDryRun || c.Reason == v1alpha1.ExtensionReasonNotUsed
}
