// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

const (
	// benchConcerned are the pods that the policy is for that is edited; they run, on all nodes.
	benchConcerned = 20
	// Of the load, pods of a workload have policiesPerPod policies each; podsPerNode of them are on one node.
	podsPerWorkload, policiesPerPod, podsPerNode = 50, 10, 100
	labelWorkload                                = "workload"
)

// benchPolicies measures edits of one policy of a namespace among many policies for many pods of another.
type benchPolicies struct {
	*bench
	load *space
	// pods and policies are there already.
	pods, policies int
}

// policyColumn is what was measured at one number of policies and pods.
type policyColumn struct {
	Pods, Policies int
	Edited         benchTimes
	Cost           benchCost
	// Noted is the cost of an edit that says nothing: what it takes to hear of a version of the object, and no more.
	Noted  benchCost
	Memory float64
}

func newBenchPolicies(t *testing.T) *benchPolicies {
	t.Helper()
	p := &benchPolicies{bench: &bench{space: enrolled(t)}, load: enrolled(t)}
	p.server("guarded")
	p.scale("guarded", benchConcerned)
	p.service("guarded", "guarded")
	p.client("client")
	p.captured("guarded", "client")
	guard := policyFor(networkAllow)
	guard.Name = "edited"
	guard.Spec.TargetRefs[0].Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}
	p.create(guard)
	p.enforced(guard)
	t.Cleanup(func() {
		_ = world.client.DeleteAllOf(context.Background(), &corev1.Node{}, client.HasLabels{labelTest})
	})
	return p
}

func (p *benchPolicies) column(policies int) policyColumn {
	p.t.Helper()
	out := policyColumn{Policies: policies, Pods: policies / policiesPerPod * podsPerWorkload}
	p.fill(out.Pods, out.Policies)
	out.Edited, out.Cost = p.edits()
	const notes = 10 // one alone is less than what is measured in
	out.Noted = p.costs(notes, func(n int) {
		for note := range notes {
			policy := &v1alpha1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: p.name, Name: "edited"}}
			edit(p.t, policy, func() { policy.Annotations = map[string]string{"note": fmt.Sprint(n, "-", note)} })
		}
	})
	out.Memory = p.usage().memory
	p.t.Logf("%d policies, %d pods: edited policy %s, %s of CPU, annotated %s", out.Policies, out.Pods, out.Edited,
		out.Cost.cpu(), out.Noted.cpu())
	return out
}

// fill makes what is missing of a number of pods, which nobody runs, on nodes that are none, and policies for them.
// The operator can't tell them from others.
func (p *benchPolicies) fill(pods, policies int) {
	p.t.Helper()
	var g errgroup.Group
	g.SetLimit(16)
	for n := p.pods; n < pods; n++ {
		node := fmt.Sprint("bench-", n/podsPerNode)
		if n%podsPerNode == 0 {
			labels := map[string]string{labelTest: "bench", corev1.LabelOSStable: "none"} // so no DaemonSet comes
			require.NoError(p.t,
				world.client.Create(p.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, Labels: labels}}))
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: p.load.name, Name: fmt.Sprint("pod-", n),
				Labels: map[string]string{labelWorkload: fmt.Sprint(n / podsPerWorkload)},
			},
			Spec: corev1.PodSpec{
				NodeName:    node,
				Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
				Containers:  []corev1.Container{{Name: "none", Image: "none"}},
			},
		}
		g.Go(func() error { return world.client.Create(p.t.Context(), pod) })
	}
	for n := p.policies; n < policies; n++ {
		policy := policyFor(networkAllow)
		policy.Namespace, policy.Name = p.load.name, fmt.Sprint("policy-", n)
		policy.Spec.TargetRefs[0].Selector = &metav1.LabelSelector{
			MatchLabels: map[string]string{labelWorkload: fmt.Sprint(n / policiesPerPod)},
		}
		for m := range 20 {
			policy.Spec.Rules[0].Sources = append(policy.Spec.Rules[0].Sources, account(fmt.Sprintf("account-%d-%d", n, m)))
		}
		g.Go(func() error { return world.client.Create(p.t.Context(), policy) })
	}
	require.NoError(p.t, g.Wait())
	p.pods, p.policies = pods, policies
}

func account(name string) v1alpha1.AuthorizationSource {
	return v1alpha1.AuthorizationSource{
		Type:           v1alpha1.AuthorizationSourceTypeServiceAccount,
		ServiceAccount: &v1alpha1.AuthorizationServiceAccount{Name: name},
	}
}

// edits measures from before a policy lets the client in until it is let in, and what an edit costs the operator. Each
// time the policy is edited twice.
func (p *benchPolicies) edits() (times benchTimes, cost benchCost) {
	p.t.Helper()
	policy := &v1alpha1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: p.name, Name: "edited"}}
	allow := func(name string) {
		edit(p.t, policy, func() { policy.Spec.Rules[0].Sources = []v1alpha1.AuthorizationSource{account(name)} })
	}
	url := "http://guarded/"
	cost = p.costs(2, func(int) {
		times = append(times, p.until("guarded", url, func() { allow("client") }))
		allow("nobody")
		p.enforced(policy)
		p.refuses("client", url)
	})
	return times, cost
}
