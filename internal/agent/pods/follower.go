// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// attemptTimeout bounds one attempt to enrol a pod, so that one that hangs doesn't keep others waiting.
	attemptTimeout = 20 * time.Second
	// shownWithin is how long the agent's watch has to show a pod that starts, which CNI ADD may have read past it, and
	// the runtime to name its sandbox.
	shownWithin = time.Minute
)

// Waits are durations that tests shorten; the default of each is for its zero value.
type Waits struct{ Attempt, Verify, Runtime, Orphan, Shown time.Duration }

// Options of a Follower. Registerer and Waits may be left out.
type Options struct {
	Client    client.Client
	Enroller  *enrol.Enroller
	Sandboxes Sandboxes
	Kernel    Kernel
	Host      Host
	Endpoints Endpoints
	// Waypoints of the node; nil: nobody serves them.
	Waypoints Waypoints
	Reports   *Reports
	// System is the mesh's own namespace.
	System string
	// Seen is the path of a network namespace as agent and proxy see it.
	Seen       func(hostPath string) string
	Log        logr.Logger
	Registerer prometheus.Registerer
	Waits      Waits
}

// Follower brings each pod of the node to where the API says it should be.
type Follower struct {
	client    client.Client
	enroller  *enrol.Enroller
	sandboxes Sandboxes
	kernel    Kernel
	host      Host
	endpoints Endpoints
	waypoints Waypoints
	reports   *Reports
	statuses  *statuses
	system    string
	seen      func(hostPath string) string
	log       logr.Logger
	waits     Waits
	// ready is closed once what an earlier run left is taken up.
	ready chan struct{}
}

// New makes a Follower. It reconciles nothing before Ready.
func New(o Options) *Follower {
	f := &Follower{
		client: o.Client, enroller: o.Enroller, sandboxes: o.Sandboxes, kernel: o.Kernel, host: o.Host,
		endpoints: o.Endpoints, waypoints: o.Waypoints,
		reports: o.Reports, statuses: newStatuses(), system: o.System, seen: o.Seen, log: o.Log,
		waits: Waits{
			Attempt: cmp.Or(o.Waits.Attempt, attemptTimeout), Verify: cmp.Or(o.Waits.Verify, enrol.VerifyEvery),
			Runtime: cmp.Or(o.Waits.Runtime, runtimeWait), Orphan: cmp.Or(o.Waits.Orphan, orphanGrace),
			Shown: cmp.Or(o.Waits.Shown, shownWithin),
		},
		ready: make(chan struct{}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(podsCollector{f.statuses})
	}
	return f
}

// Ready lets the reconciling of pods begin, after Recover.
func (f *Follower) Ready() { close(f.ready) }

// Await returns once Ready was called.
func (f *Follower) Await(ctx context.Context) error {
	select {
	case <-f.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Former says whether the proxy of the agent that was in charge before may be taking connections still.
func (f *Follower) Former(listens bool) { f.enroller.Former(listens) }

// Snapshot is the status of all pods, by namespace and name.
func (f *Follower) Snapshot() []Status { return f.statuses.snapshot() }

// Netns are the paths of the network namespaces of a pod, by "namespace/name", where something was done for it: of
// several, if it was made anew under its name and the one before isn't forgotten yet.
func (f *Follower) Netns(pod string) []string { return f.statuses.netns(pod) }

// Mesh is the Mesh, or nil if there is none.
func (f *Follower) Mesh(ctx context.Context) (*v1alpha1.Mesh, error) {
	mesh := &v1alpha1.Mesh{}
	if err := f.client.Get(ctx, types.NamespacedName{Name: names.Mesh}, mesh); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return mesh, nil
}

// Policies are the AuthenticationPolicies of a namespace.
func (f *Follower) Policies(ctx context.Context, namespace string) ([]v1alpha1.AuthenticationPolicy, error) {
	list := &v1alpha1.AuthenticationPolicyList{}
	if err := f.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the policies of namespace %s: %w", namespace, err)
	}
	return list.Items, nil
}

func (f *Follower) decide(ctx context.Context, pod *corev1.Pod) (member.Decision, *v1alpha1.Mesh, error) {
	mesh, err := f.Mesh(ctx)
	if err != nil {
		return member.Decision{}, nil, err
	}
	ns := &corev1.Namespace{}
	if err := f.client.Get(ctx, types.NamespacedName{Name: pod.Namespace}, ns); apierrors.IsNotFound(err) {
		ns = nil
	} else if err != nil {
		return member.Decision{}, nil, err
	}
	policies, err := f.Policies(ctx, pod.Namespace)
	if err != nil {
		return member.Decision{}, nil, err
	}
	return member.Decide(pod, ns, mesh, f.system, policies...), mesh, nil
}

// Start captures a pod that has no process yet, and says so in its status.
func (f *Follower) Start(ctx context.Context, pod *corev1.Pod, d member.Decision, t enrol.Target) error {
	f.statuses.start(pod)
	f.setStatus(pod, stateEnrolling, d, t)
	if err := f.enroller.Capture(ctx, t, enrol.Starting); err != nil {
		failed := d
		failed.Reason, failed.Message = v1alpha1.PodReasonCaptureFailed, err.Error()
		f.setStatus(pod, StateFailed, failed, t)
		return err
	}
	f.setStatus(pod, stateStarting, d, t)
	return nil
}

// Redirects tells whether a pod's traffic is captured by now.
func (f *Follower) Redirects(ctx context.Context, uid string) (bool, error) {
	have, err := f.enroller.Current(ctx, uid)
	return have.Redirected, err
}

// Forget drops all that was done for a pod that is gone.
func (f *Follower) Forget(ctx context.Context, uid string) error {
	f.goes(uid)
	f.statuses.unset(uid)
	return f.enroller.Forget(ctx, uid)
}

// ForgetSandbox is Forget for one of the network namespaces that a pod had; see enrol.Enroller.
func (f *Follower) ForgetSandbox(ctx context.Context, uid, netns string) error {
	f.goes(uid)
	return f.enroller.ForgetSandbox(ctx, uid, netns)
}

// UIDs are those of the pods of a name that something was done for.
func (f *Follower) UIDs(namespace, name string) []string { return f.statuses.uids(namespace, name) }
