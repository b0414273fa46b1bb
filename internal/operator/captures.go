// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/member"
)

// captures follows the condition fairway.dev/Captured of all pods and sums it up by node, so that the Mesh's status
// costs nothing but what changed.
type captures struct {
	changed func()

	mu    sync.Mutex
	nodes map[string]map[types.NamespacedName]string // pod → what went wrong; empty: captured
	where map[types.NamespacedName]string
}

func newCaptures(changed func()) *captures {
	return &captures{
		changed: changed, nodes: map[string]map[types.NamespacedName]string{},
		where: map[types.NamespacedName]string{},
	}
}

// set takes a pod's condition in.
func (c *captures) set(p *corev1.Pod) {
	key := types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
	switch said := member.Condition(p); {
	case said == nil || member.Finished(p):
		c.remove(key)
	case said.Status == corev1.ConditionTrue:
		c.put(p.Spec.NodeName, key, "")
	case said.Reason == v1alpha1.PodReasonCaptureFailed:
		c.put(p.Spec.NodeName, key, fmt.Sprintf("%s: %s", key, strings.TrimSuffix(said.Message, ".")))
	default:
		c.remove(key)
	}
}

func (c *captures) put(node string, key types.NamespacedName, problem string) {
	c.mu.Lock()
	old, had := c.nodes[node][key]
	if c.nodes[node] == nil {
		c.nodes[node] = map[types.NamespacedName]string{}
	}
	c.nodes[node][key], c.where[key] = problem, node
	c.mu.Unlock()
	if !had || old != problem {
		c.changed()
	}
}

func (c *captures) remove(key types.NamespacedName) {
	c.mu.Lock()
	node, had := c.where[key]
	delete(c.where, key)
	delete(c.nodes[node], key)
	if len(c.nodes[node]) == 0 {
		delete(c.nodes, node)
	}
	c.mu.Unlock()
	if had {
		c.changed()
	}
}

// reports lists the nodes by name.
func (c *captures) reports() []controllers.NodeReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]controllers.NodeReport, 0, len(c.nodes))
	for node, pods := range c.nodes {
		r := controllers.NodeReport{Node: node}
		for _, problem := range pods {
			if problem == "" {
				r.Captured++
			} else {
				r.Problems = append(r.Problems, problem)
			}
		}
		slices.Sort(r.Problems)
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b controllers.NodeReport) int { return cmp.Compare(a.Node, b.Node) })
	return out
}
