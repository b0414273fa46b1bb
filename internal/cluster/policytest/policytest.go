// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policytest makes policies for the tests of what all kinds of them share. They are of a kind of the Gateway
// API, so that a real API server knows it.
package policytest

import (
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// For is a policy that names Services, each by its name and that of a port, or "".
func For(namespace, name string, generation int64, services ...[2]string) *gwv1.BackendTLSPolicy {
	p := &gwv1.BackendTLSPolicy{}
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
