// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	_ "embed" // the policies' expressions
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/internal/names"
)

var (
	//go:embed policies/agents.yaml
	agentPolicy string
	//go:embed policies/labels.yaml
	labelPolicy string
)

// Policies are the admission policies of a mesh, each with its binding. The operator applies them itself: they name its
// namespace, and a bundle of the Operator Lifecycle Manager can't carry their kind.
func Policies(namespace string) []client.Object {
	agents := strings.NewReplacer("NAMESPACE", namespace, "ACCOUNT", names.NodeServiceAccount).Replace(agentPolicy)
	var out []client.Object
	for _, p := range []struct{ name, spec string }{{names.AgentPolicy, agents}, {names.LabelPolicy, labelPolicy}} {
		meta := metav1.ObjectMeta{Name: p.name, Labels: map[string]string{names.LabelManagedBy: names.ManagedBy}}
		policy := &admissionregistrationv1.ValidatingAdmissionPolicy{
			TypeMeta: metav1.TypeMeta{
				APIVersion: admissionregistrationv1.SchemeGroupVersion.String(),
				Kind:       "ValidatingAdmissionPolicy",
			},
			ObjectMeta: meta,
		}
		if err := yaml.UnmarshalStrict([]byte(p.spec), &policy.Spec); err != nil {
			panic(fmt.Sprintf("policy %s: %v", p.name, err)) // a mistake of the build: no input is in it
		}
		out = append(out, policy, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
			TypeMeta: metav1.TypeMeta{
				APIVersion: admissionregistrationv1.SchemeGroupVersion.String(),
				Kind:       "ValidatingAdmissionPolicyBinding",
			},
			ObjectMeta: meta,
			Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: p.name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
			},
		})
	}
	return out
}
