// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/process"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

const (
	// readyTimeout is generous: on a loaded machine everything takes its time, and giving up helps nobody.
	readyTimeout = 3 * time.Minute
	pollInterval = 50 * time.Millisecond
)

// waitReady waits for the API server, gives the nodes their pod ranges, deploys cluster DNS and waits for all of them.
func (c *Cluster) waitReady(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", c.Home.Kubeconfig())
	if err != nil {
		return err
	}
	config.QPS, config.Burst = -1, -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	err = c.until(ctx, "the API server", topology.Nodes[0], func(ctx context.Context) (bool, error) {
		_, err := client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	c.say("API server ready")
	// The first requests may meet an API server that still sets up its namespaces and default roles.
	err = c.until(ctx, "applying CoreDNS", topology.Nodes[0], func(ctx context.Context) (bool, error) {
		err := c.apply(ctx, coreDNS)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	for _, n := range topology.Nodes {
		started, err := startOf(c.Home, n)
		if err != nil {
			return err
		}
		err = c.until(ctx, n.Name, n, func(ctx context.Context) (bool, error) { return nodeReady(ctx, client, n, started) })
		if err != nil {
			return err
		}
		c.say("%s Ready", n.Name)
	}
	err = c.until(ctx, "CoreDNS", topology.Nodes[0], func(ctx context.Context) (bool, error) {
		pods, err := client.CoreV1().Pods(metav1.NamespaceSystem).List(
			ctx, metav1.ListOptions{LabelSelector: "k8s-app=kube-dns"})
		return err == nil && slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return podReady(c.Home, &p) }), err
	})
	if err != nil {
		return err
	}
	c.say("CoreDNS Ready")
	return nil
}

// errEnded is why nothing more can come from a node.
var errEnded = errors.New("the node has ended")

// until polls f until it says yes. Errors are expected meanwhile; the last one is told when time runs out. A node that
// ended will not come back by itself.
func (c *Cluster) until(
	ctx context.Context, what string, n topology.Node, f func(context.Context) (bool, error),
) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, pollInterval, readyTimeout, true, func(ctx context.Context) (bool, error) {
		if !process.Running(c.Home.Process(n.Name)) {
			return false, errEnded
		}
		ok, err := f(ctx)
		last = err
		return ok, nil
	})
	if errors.Is(err, errEnded) {
		return fmt.Errorf("%s will not be ready, for %s does not run any more; its log, %s, ends with:\n%s",
			what, n.Name, c.Home.Log(n.Name), tail(c.Home.Log(n.Name)))
	}
	if err != nil {
		return fmt.Errorf("%s is not ready (%w; last: %w): see %s and %s/var/log/fairway-dev",
			what, err, last, c.Home.Log(n.Name), c.Home.NodeRoot(n.Name))
	}
	return nil
}

// tailLines is how much of a log is shown: the error that ended the process is at its end.
const tailLines = 20

func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// startOf returns when the node started, in the whole seconds of Kubernetes. A cluster whose state was kept remembers
// how everything was before it went down: only what was said since counts.
func startOf(home topology.Home, n topology.Node) (time.Time, error) {
	info, err := os.Stat(home.Process(n.Name))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime().Truncate(time.Second), nil
}

// nodeReady gives the node its pod range once it has registered, and says whether it is ready with it.
func nodeReady(ctx context.Context, client kubernetes.Interface, n topology.Node, started time.Time) (bool, error) {
	have, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, fmt.Errorf("kubelet has not registered the node")
	}
	if err != nil {
		return false, err
	}
	if have.Spec.PodCIDR == "" {
		patch := fmt.Appendf(nil, `{"spec":{"podCIDR":%q,"podCIDRs":[%q]}}`, n.PodCIDR, n.PodCIDR)
		_, err := client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		return false, err
	}
	for _, cond := range have.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			return cond.Status == corev1.ConditionTrue && !cond.LastHeartbeatTime.Time.Before(started) && !tainted(have), nil
		}
	}
	return false, nil
}

// tainted says whether pods can't be placed yet although kubelet calls the node ready.
func tainted(n *corev1.Node) bool {
	for _, t := range n.Spec.Taints {
		if strings.HasPrefix(t.Key, "node.kubernetes.io/") {
			return true
		}
	}
	return false
}

// podReady says whether the pod is ready with containers that were started since its node was.
func podReady(home topology.Home, p *corev1.Pod) bool {
	n, err := topology.Find(p.Spec.NodeName)
	if err != nil {
		return false
	}
	started, err := startOf(home, n)
	if err != nil {
		return false
	}
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running == nil || c.State.Running.StartedAt.Time.Before(started) {
			return false
		}
	}
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
