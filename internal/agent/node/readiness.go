// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/pods"
)

const (
	// readyEvery is how often it is looked whether the proxy serves.
	readyEvery = 500 * time.Millisecond
	// readyTimeout bounds one look, and one write.
	readyTimeout = 5 * time.Second
)

var errStarting = errors.New("the agent is starting")

// readiness says on the agent's own pod whether its proxy serves, and the pod is ready by that (a readiness gate).
// Kubelet can't ask: the agents of a node share its network, so there is no port that each has for itself.
type readiness struct {
	client client.Client
	pod    types.NamespacedName
	proxy  func(context.Context) error
	log    logr.Logger

	mu sync.Mutex
	// lacking is what keeps the agent from having given its proxy all that it needs.
	lacking error
}

// lacks notes what is missing still; nil: nothing.
func (r *readiness) lacks(what error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lacking = what
}

// started notes that the agent isn't starting any more. What it lacked to take over from another, it lacks still.
func (r *readiness) started() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(r.lacking, errStarting) {
		r.lacking = nil
	}
}

func (r *readiness) check(ctx context.Context) error {
	r.mu.Lock()
	lacking := r.lacking
	r.mu.Unlock()
	if lacking != nil {
		return lacking
	}
	return r.proxy(ctx)
}

// run keeps the condition until the context ends. Then it stays: a pod that goes takes no part in anything.
func (r *readiness) run(ctx context.Context) error {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for said := ""; ; {
		what := r.look(ctx)
		if now := what.status + what.message; now != said && ctx.Err() == nil {
			if err := r.say(ctx, what); err != nil {
				r.log.Info("the condition of the agent's pod can't be set, trying again", "reason", err.Error())
			} else {
				said = now
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

type verdict struct{ status, reason, message string }

func (r *readiness) look(ctx context.Context) verdict {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := r.check(ctx); err != nil {
		return verdict{
			string(corev1.ConditionFalse), v1alpha1.PodReasonNotServing,
			"The node proxy doesn't serve all captured pods of its node yet: " + err.Error() + ".",
		}
	}
	return verdict{
		string(corev1.ConditionTrue), v1alpha1.PodReasonServing, "The node proxy serves all captured pods of its node.",
	}
}

func (r *readiness) say(ctx context.Context, what verdict) error {
	if r.pod.Name == "" {
		r.log.Info(what.message)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	pod := &corev1.Pod{}
	if err := r.client.Get(ctx, r.pod, pod); err != nil {
		return err
	}
	_, err := pods.WriteCondition(ctx, r.client, pod, v1alpha1.PodConditionServing,
		corev1.ConditionStatus(what.status), what.reason, what.message)
	return err
}
