// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/wake"
)

const (
	// liveTimeout bounds a question to the API server at a pod's start.
	liveTimeout = 3 * time.Second
	// lingerEvery is how often connections are counted in a pod that is gone.
	lingerEvery = 10 * time.Millisecond
)

// follower captures pods and knows how they stand; pods.Follower is one.
type follower interface {
	// Mesh is nil if there is none.
	Mesh(ctx context.Context) (*v1alpha1.Mesh, error)
	// Policies are those of a namespace that may say something of its pods' modes.
	Policies(ctx context.Context, namespace string) ([]v1alpha1.AuthenticationPolicy, error)
	// Start captures a pod that has no process yet.
	Start(ctx context.Context, pod *corev1.Pod, d member.Decision, t enrol.Target) error
	// Redirects tells whether a pod's traffic is captured by now.
	Redirects(ctx context.Context, uid string) (bool, error)
	// UIDs are those of the pods of a name that something was done for.
	UIDs(namespace, name string) []string
	Forget(ctx context.Context, uid string) error
	ForgetSandbox(ctx context.Context, uid, netns string) error
}

// gatekeeper is the cni.Handler: it lets a pod of the mesh start once its traffic is captured.
type gatekeeper struct {
	pods follower
	// cached is what the agent watches. live reads past it, for it may not know yet what was applied a moment before the
	// pod.
	cached, live client.Reader
	node, system string
	kernel       endKernel
	// lingers is how long a pod's network waits for what proxies have open in it.
	lingers time.Duration
	// seen is the path of a network namespace as agent and proxy see it.
	seen func(hostPath string) string
	// again has a pod reconciled.
	again func(pod *corev1.Pod)
	// failed counts a failure to capture a pod.
	failed func(error)
	starts *prometheus.HistogramVec
	log    logr.Logger
}

// Add implements cni.Handler.
func (g *gatekeeper) Add(ctx context.Context, req plugin.Request) (captured bool, err error) {
	defer func(started time.Time) {
		result := "passed"
		switch {
		case err != nil:
			result = "failed"
			g.failed(err)
		case captured:
			result = "captured"
		}
		g.starts.WithLabelValues(result).Observe(time.Since(started).Seconds())
	}(time.Now())

	pod, d, mesh, err := g.question(ctx, req)
	if err != nil {
		return false, err
	}
	switch d.Action {
	case member.Release:
		if pod == nil {
			return false, nil
		}
		return false, g.pods.Forget(ctx, string(pod.UID))
	case member.Hold:
		if d.Reason == v1alpha1.PodReasonTerminating {
			return false, nil
		}
		return false, errors.New(d.Message)
	case member.Capture:
	}
	ips := addresses(req.IPs)
	if len(ips) == 0 {
		return false, errors.New("the cluster's network plugin assigned no address to the pod")
	}
	if err := enrol.InRanges(mesh, ips); err != nil {
		return false, err
	}
	t := enrol.NewTarget(pod, mesh, d, g.seen(req.Netns), ips)
	// Whatever comes of it: the pod may be gone by then, and a failure may need no second try.
	defer g.again(pod)
	if err := g.pods.Start(ctx, pod, d, t); err != nil {
		return false, err
	}
	return true, nil
}

// Check implements cni.Handler.
func (g *gatekeeper) Check(ctx context.Context, req plugin.Request) (bool, error) {
	pod, d, _, err := g.question(ctx, req)
	if err != nil || d.Action != member.Capture {
		return false, err
	}
	redirects, err := g.pods.Redirects(ctx, string(pod.UID))
	if err == nil && !redirects {
		err = errors.New("the pod's traffic isn't captured yet")
	}
	return redirects, err
}

// Del implements cni.Handler. The network namespace goes with all rules in it, but not before the proxy's listeners are
// out of it.
func (g *gatekeeper) Del(ctx context.Context, req plugin.Request) {
	for _, uid := range g.pods.UIDs(req.PodNamespace, req.PodName) {
		netns := ""
		if req.Netns != "" {
			netns = g.seen(req.Netns)
		} else if uid != req.PodUID {
			continue
		}
		if err := g.pods.ForgetSandbox(ctx, uid, netns); err != nil {
			g.log.Info("clean up after a pod", "pod", req.PodNamespace+"/"+req.PodName, "reason", err.Error())
		}
	}
	if req.Netns != "" {
		g.endConnections(ctx, g.seen(req.Netns))
	}
}

// endConnections of the node's proxies, this one's and any that drains, in a network namespace that goes. No process of
// the pod is left by now, and what it said last may be on its way still, so they have a moment to end by themselves.
// Those that are left then wait for a peer, and their ends would be lost with the namespace's interface: both sides
// would notice by keepalive only, and a proxy that drains would wait for it.
func (g *gatekeeper) endConnections(ctx context.Context, netns string) {
	ctx, cancel := context.WithTimeout(ctx, g.lingers)
	defer cancel()
	for {
		open, err := g.kernel.Marked(netns)
		if err != nil || open == 0 {
			return // it is gone already, or has none
		}
		if !wake.After(ctx, lingerEvery) {
			break
		}
	}
	if ended, err := g.kernel.EndMarked(netns); err != nil || ended > 0 {
		g.log.V(1).Info("ended what proxies had open in a pod that is gone", "netns", netns, "ended", ended, "error", err)
	}
}

// question finds out what should become of the pod of a request. The pod is nil where its namespace decides already, so
// that a pod outside the mesh starts whatever else is wrong.
func (g *gatekeeper) question(
	ctx context.Context, req plugin.Request,
) (*corev1.Pod, member.Decision, *v1alpha1.Mesh, error) {
	pass := func(reason string) (*corev1.Pod, member.Decision, *v1alpha1.Mesh, error) {
		return nil, member.Decision{Action: member.Release, Reason: reason}, nil, nil
	}
	mesh, err := g.pods.Mesh(ctx)
	if err != nil {
		return nil, member.Decision{}, nil, err
	}
	if mesh == nil {
		return pass(v1alpha1.PodReasonMeshAbsent)
	}
	ns, err := g.namespace(ctx, req.PodNamespace)
	if err != nil {
		return nil, member.Decision{}, nil, err
	}
	if !member.Enrolled(ns) {
		return pass(v1alpha1.PodReasonNotEnrolled)
	}
	pod, err := g.pod(ctx, req)
	if err != nil {
		return nil, member.Decision{}, nil, err
	}
	policies, err := g.pods.Policies(ctx, req.PodNamespace)
	if err != nil {
		return nil, member.Decision{}, nil, err
	}
	return pod, member.Decide(pod, ns, mesh, g.system, policies...), mesh, nil
}

// namespace is read past the cache unless that says enrolled: a pod that is created right after its namespace was
// labelled must not slip through. Without the API server the cache is what there is.
func (g *gatekeeper) namespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	key := types.NamespacedName{Name: name}
	cached := &corev1.Namespace{}
	cacheErr := g.cached.Get(ctx, key, cached)
	if cacheErr == nil && member.Enrolled(cached) {
		return cached, nil
	}
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	live := &corev1.Namespace{}
	switch err := g.live.Get(ctx, key, live); {
	case err == nil:
		return live, nil
	case apierrors.IsNotFound(err):
		return nil, nil
	case cacheErr == nil:
		g.log.V(1).Info("namespace taken from the cache", "namespace", name, "reason", err.Error())
		return cached, nil
	default:
		return nil, fmt.Errorf("read namespace %s: %w", name, err)
	}
}

func (g *gatekeeper) pod(ctx context.Context, req plugin.Request) (*corev1.Pod, error) {
	key := types.NamespacedName{Namespace: req.PodNamespace, Name: req.PodName}
	pod := &corev1.Pod{}
	if err := g.cached.Get(ctx, key, pod); err == nil && isPod(pod, req.PodUID) {
		return pod, nil
	}
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	pod, err := readPod(ctx, g.live, key, g.node)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("pod %s isn't known to the API server, no longer or not yet", key)
	case err != nil:
		return nil, fmt.Errorf("read pod %s: %w", key, err)
	case !isPod(pod, req.PodUID):
		return nil, fmt.Errorf("pod %s has been replaced by another of the same name", key)
	}
	return pod, nil
}

func isPod(pod *corev1.Pod, uid string) bool {
	return uid == "" || uid == string(pod.UID) || uid == pod.Annotations[names.AnnotationStatic]
}

// addresses from CNI come without those that the API will add; they are what is there.
func addresses(ips []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, ip := range ips {
		if ip = ip.Unmap(); ip.IsValid() && !slices.Contains(out, ip) {
			out = append(out, ip)
		}
	}
	return out
}
