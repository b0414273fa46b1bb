// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// State of a pod on this node.
type State string

// States.
const (
	// StateNotCaptured: the pod isn't to be captured; the reason says why.
	StateNotCaptured State = "NotCaptured"
	// stateWaiting: the pod is to be captured and has no network yet.
	stateWaiting State = "Waiting"
	// stateEnrolling: listeners and certificate are being made; traffic isn't redirected yet.
	stateEnrolling State = "Enrolling"
	// stateStarting: traffic is redirected, and the pod doesn't answer mTLS yet.
	stateStarting State = "Starting"
	// StateCaptured: all is in place.
	StateCaptured State = "Captured"
	// stateReleasing: traffic is no longer redirected; senders may still use mTLS for a moment.
	stateReleasing State = "Releasing"
	// StateFailed: the last attempt failed; another follows.
	StateFailed State = "Failed"
)

// states are all of them.
var states = []State{
	StateNotCaptured, stateWaiting, stateEnrolling, stateStarting, StateCaptured, stateReleasing, StateFailed,
}

// Status is how one pod stands, for people and for the agent's introspection.
type Status struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	State     State  `json:"state"`
	// Reason is a word, Message says more.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Mode is names.MTLSStrict or names.MTLSPermissive, of pods that are to be captured.
	Mode string `json:"mode,omitempty"`
	// Except are the ports that have the other mode.
	Except []uint16 `json:"except,omitempty"`
	// Closed: the pod is kept from addresses outside of the mesh.
	Closed bool `json:"closed,omitempty"`
	// Netns is the path of the pod's network namespace, where known.
	Netns    string `json:"netns,omitempty"`
	Identity string `json:"identity,omitempty"`
	// Since is when the pod got into this state.
	Since time.Time `json:"since"`
}

// statuses are those of all pods.
type statuses struct {
	mu    sync.Mutex
	byUID map[string]Status
	// started are pods whose sandbox CNI ADD has captured.
	started map[string]start
}

// start of a pod in a sandbox.
type start struct {
	name types.NamespacedName
	at   time.Time
	// pod is as CNI ADD read it, and not to be changed; nil once the agent's watch has shown it since.
	pod *corev1.Pod
}

func newStatuses() *statuses {
	return &statuses{byUID: map[string]Status{}, started: map[string]start{}}
}

// start notes that a pod starts. The agent's watch may show it only later.
func (all *statuses) start(pod *corev1.Pod) {
	all.mu.Lock()
	defer all.mu.Unlock()
	name := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	all.started[string(pod.UID)] = start{name: name, at: time.Now(), pod: pod}
}

// unshown is the pod of a name that started last, if the watch has still to show it; else nil.
func (all *statuses) unshown(name types.NamespacedName, within time.Duration) *corev1.Pod {
	all.mu.Lock()
	defer all.mu.Unlock()
	var last start
	for _, s := range all.started {
		if s.name == name && s.at.After(last.at) {
			last = s
		}
	}
	if last.left(within) == 0 {
		return nil
	}
	return last.pod
}

// shown notes that the watch shows a pod.
func (all *statuses) shown(uid string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s, starts := all.started[uid]; starts {
		all.started[uid] = start{name: s.name, at: s.at}
	}
}

// awaited is how long the watch has still to show a pod, of the time that it has. Zero: what it doesn't show is gone.
func (all *statuses) awaited(uid string, within time.Duration) time.Duration {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s := all.started[uid]; s.pod != nil {
		return s.left(within)
	}
	return 0
}

// starting is how much is left of the time in which the sandbox of a pod may be known to nobody but CNI ADD.
func (all *statuses) starting(uid string, within time.Duration) time.Duration {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.started[uid].left(within)
}

func (s start) left(of time.Duration) time.Duration { return max(0, time.Until(s.at.Add(of))) }

// set notes a pod's status; Since is kept while the state stays.
func (all *statuses) set(s Status) {
	all.mu.Lock()
	defer all.mu.Unlock()
	old, ok := all.byUID[s.UID]
	if s.Since = time.Now(); ok && old.State == s.State {
		s.Since = old.Since
	}
	all.byUID[s.UID] = s
}

// of the pod with a UID, if it is known.
func (all *statuses) of(uid string) (Status, bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	s, known := all.byUID[uid]
	return s, known
}

// identities is how many the captured pods have.
func (all *statuses) identities() int {
	all.mu.Lock()
	defer all.mu.Unlock()
	seen := map[string]bool{}
	for _, s := range all.byUID {
		if s.State == StateCaptured {
			seen[s.Identity] = true
		}
	}
	return len(seen)
}

// unset forgets a pod's status.
func (all *statuses) unset(uid string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.byUID, uid)
	delete(all.started, uid)
}

// uids of the pods that something was done for or whose status is known, by namespace and name.
func (all *statuses) uids(namespace, name string) []string {
	all.mu.Lock()
	defer all.mu.Unlock()
	var out []string
	for uid, s := range all.byUID {
		if s.Namespace == namespace && s.Name == name {
			out = append(out, uid)
		}
	}
	return out
}

// netns of the pods of a name, where known.
func (all *statuses) netns(pod string) []string {
	all.mu.Lock()
	defer all.mu.Unlock()
	var out []string
	for _, s := range all.byUID {
		if s.Netns != "" && s.Namespace+"/"+s.Name == pod {
			out = append(out, s.Netns)
		}
	}
	return out
}

// snapshot is the status of all pods, by namespace and name.
func (all *statuses) snapshot() []Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	out := make([]Status, 0, len(all.byUID))
	for _, s := range all.byUID {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int {
		return strings.Compare(a.Namespace+"/"+a.Name+"/"+a.UID, b.Namespace+"/"+b.Name+"/"+b.UID)
	})
	return out
}
