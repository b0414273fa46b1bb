// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policytest has a kind of policies for the tests of what all kinds share: one of the Gateway API that the mesh
// doesn't read, so that a real API server knows it.
package policytest

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
)

// BackendTLSPolicy is that of the Gateway API as a cluster.Policy.
type BackendTLSPolicy struct{ gwv1.BackendTLSPolicy }

var _ cluster.Policy = &BackendTLSPolicy{}

// Targets implements cluster.Policy.
func (p *BackendTLSPolicy) Targets() []gwv1.LocalPolicyTargetReferenceWithSectionName {
	return p.Spec.TargetRefs
}

// Ancestors implements cluster.Policy.
func (p *BackendTLSPolicy) Ancestors() *[]gwv1.PolicyAncestorStatus { return &p.Status.Ancestors }

// DeepCopyObject keeps the type.
func (p *BackendTLSPolicy) DeepCopyObject() runtime.Object {
	return &BackendTLSPolicy{*p.DeepCopy()}
}

// AddToScheme registers it in place of the Gateway API's own.
func AddToScheme(s *runtime.Scheme) {
	version := schema.GroupVersion{Group: gwv1.GroupName, Version: "v1"}
	s.AddKnownTypeWithName(version.WithKind("BackendTLSPolicy"), &BackendTLSPolicy{})
	metav1.AddToGroupVersion(s, version)
}

// For is a policy that names Services, each by its name and that of a port, or "".
func For(namespace, name string, generation int64, services ...[2]string) *BackendTLSPolicy {
	p := &BackendTLSPolicy{}
	p.Namespace, p.Name, p.Generation = namespace, name, generation
	p.Spec.Validation.Hostname = "example.org"
	p.Spec.Validation.WellKnownCACertificates = new(gwv1.WellKnownCACertificatesSystem)
	for _, s := range services {
		ref := gwv1.LocalPolicyTargetReferenceWithSectionName{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{
			Kind: "Service", Name: gwv1.ObjectName(s[0]),
		}}
		if s[1] != "" {
			ref.SectionName = new(gwv1.SectionName(s[1]))
		}
		p.Spec.TargetRefs = append(p.Spec.TargetRefs, ref)
	}
	return p
}
