// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/member"
)

// captures follows the condition fairway.dev/Captured of all pods and sums it up by node, so that neither what is kept
// nor the Mesh's status costs more where there are many pods: those that are captured are but counted.
type captures struct {
	changed func()

	mu    sync.Mutex
	nodes map[string]*nodeCaptures
}

// nodeCaptures are the pods of a node whose agent has said how their capture went.
type nodeCaptures struct {
	pods     int
	problems map[types.NamespacedName]string
}

func newCaptures(changed func()) *captures {
	return &captures{changed: changed, nodes: map[string]*nodeCaptures{}}
}

// outcome is how the capture of a pod went, as its condition says.
type outcome struct {
	node, problem string
	known         bool
}

// outcomeOf a pod; nil: there is none.
func outcomeOf(p *corev1.Pod) outcome {
	if p == nil || member.Finished(p) {
		return outcome{}
	}
	switch said := member.Condition(p); {
	case said == nil:
	case said.Status == corev1.ConditionTrue:
		return outcome{node: p.Spec.NodeName, known: true}
	case said.Reason == v1alpha1.PodReasonCaptureFailed:
		return outcome{
			node: p.Spec.NodeName, known: true,
			problem: fmt.Sprintf("%s/%s: %s", p.Namespace, p.Name, strings.TrimSuffix(said.Message, ".")),
		}
	}
	return outcome{}
}

// change takes in what a pod was before, and is now; nil: there was none, or is none any more. Each version of a pod
// must be before exactly once after it was now.
func (c *captures) change(before, now *corev1.Pod) {
	was, is := outcomeOf(before), outcomeOf(now)
	if was == is {
		return
	}
	c.mu.Lock()
	if was.known {
		c.count(was, before, -1)
	}
	if is.known {
		c.count(is, now, 1)
	}
	c.mu.Unlock()
	c.changed()
}

func (c *captures) count(o outcome, p *corev1.Pod, by int) {
	n := c.nodes[o.node]
	if n == nil {
		n = &nodeCaptures{problems: map[types.NamespacedName]string{}}
		c.nodes[o.node] = n
	}
	key := types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
	switch {
	case o.problem == "":
		n.pods += by
	case by > 0:
		n.problems[key] = o.problem
	default:
		delete(n.problems, key)
	}
	if n.pods == 0 && len(n.problems) == 0 {
		delete(c.nodes, o.node)
	}
}

// reports lists the nodes by name.
func (c *captures) reports() []controllers.NodeReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]controllers.NodeReport, 0, len(c.nodes))
	for node, n := range c.nodes {
		out = append(out, controllers.NodeReport{
			Node: node, Captured: n.pods, Problems: slices.Sorted(maps.Values(n.problems)),
		})
	}
	slices.SortFunc(out, func(a, b controllers.NodeReport) int { return cmp.Compare(a.Node, b.Node) })
	return out
}
