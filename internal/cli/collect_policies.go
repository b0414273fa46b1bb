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
	"github.com/fairway-mesh/fairway/internal/names"
)

// policy is what the kinds of the mesh have in common that users write for their own namespaces.
type policy interface {
	client.Object
	Ancestors() *[]gwv1.PolicyAncestorStatus
}

// policyList are all policies of a kind.
type policyList struct {
	kind, what string
	list       client.ObjectList
}

// Kinds of policies and extensions by the names that sentences have for them.
const (
	whatAuthenticationPolicies = "AuthenticationPolicies"
	whatAuthorizationPolicies  = "AuthorizationPolicies"
	whatTrafficPolicies        = "TrafficPolicies"
	whatHTTPExtensions         = "HTTPExtensions"
)

func isPolicies(what string) bool {
	switch what {
	case whatAuthenticationPolicies, whatAuthorizationPolicies, whatTrafficPolicies, whatHTTPExtensions:
		return true
	}
	return false
}

// listPolicies reads the policies and extensions.
func (k *collector) listPolicies(ctx context.Context) {
	var policies v1alpha1.AuthenticationPolicyList
	k.list(ctx, whatAuthenticationPolicies, &policies)
	k.policies = policies.Items
	k.others = []policyList{
		{"AuthorizationPolicy", whatAuthorizationPolicies, &v1alpha1.AuthorizationPolicyList{}},
		{"TrafficPolicy", whatTrafficPolicies, &v1alpha1.TrafficPolicyList{}},
		{"HTTPExtension", whatHTTPExtensions, &v1alpha1.HTTPExtensionList{}},
	}
	for _, all := range k.others {
		k.list(ctx, all.what, all.list)
	}
}

// eachPolicy calls with every policy and extension, and its kind.
func (k *collector) eachPolicy(call func(kind string, p policy)) {
	for i := range k.policies {
		call("AuthenticationPolicy", &k.policies[i])
	}
	for _, all := range k.others {
		_ = meta.EachListItem(all.list, func(o runtime.Object) error { // an error says that it is no list
			if p, ok := o.(policy); ok {
				call(all.kind, p)
			}
			return nil
		})
	}
}

// judgePolicies finds the policies and extensions that do less than they say.
func (k *collector) judgePolicies() {
	k.eachPolicy(func(kind string, p policy) {
		for _, what := range k.policyComplaints(p) {
			k.report.Policies = append(k.report.Policies, fmt.Sprintf("%s %s: %s", kind, client.ObjectKeyFromObject(p), what))
		}
	})
	slices.Sort(k.report.Policies)
	k.report.Policies = slices.Compact(k.report.Policies)
}

// policyComplaints are what the conditions of a policy complain of.
func (k *collector) policyComplaints(p policy) (out []string) {
	answered := false
	for _, a := range *p.Ancestors() {
		if a.ControllerName != names.MeshController {
			continue
		}
		answered = true
		if c := complaint(slices.DeleteFunc(slices.Clone(a.Conditions), meant)); c != "" {
			out = append(out, c)
		}
	}
	if !answered && (k.mesh != nil || k.meshUnknown) && k.enrolled(p.GetNamespace()) {
		out = append(out, messageUnanswered)
	}
	return out
}

// meant tells whether a condition is false because the policy's author wants it so.
func meant(c metav1.Condition) bool {
	return c.Reason == v1alpha1.PolicyReasonDryRun || c.Reason == v1alpha1.ExtensionReasonNotUsed
}
