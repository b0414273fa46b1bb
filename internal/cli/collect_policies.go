// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	var authorization v1alpha1.AuthorizationPolicyList
	k.list(ctx, "AuthorizationPolicies", &authorization)
	for i := range authorization.Items {
		k.judgePolicy("AuthorizationPolicy", &authorization.Items[i])
	}
	var traffic v1alpha1.TrafficPolicyList
	k.list(ctx, "TrafficPolicies", &traffic)
	for i := range traffic.Items {
		k.judgePolicy("TrafficPolicy", &traffic.Items[i])
	}
	var extensions v1alpha1.HTTPExtensionList
	k.list(ctx, "HTTPExtensions", &extensions)
	for i := range extensions.Items {
		k.judgePolicy("HTTPExtension", &extensions.Items[i])
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
