// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/admin"
	"github.com/fairway-mesh/fairway/internal/agent/charge"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/status"
	"github.com/fairway-mesh/fairway/internal/wake"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	// shadowEvery is how often an agent looks what the one in charge has captured.
	shadowEvery = 500 * time.Millisecond
	// chargeEvery is how often agents look who is in charge.
	chargeEvery = 50 * time.Millisecond
	// drainEvery is how often the proxy's connections are counted.
	drainEvery = time.Second
	// namedPods are so many of those that aren't served.
	namedPods = 5
)

// takeCharge returns when this agent is in charge. Where another one is, this one's proxy listens beside the other's
// meanwhile, and the agent doesn't take over before that proxy serves all captured pods. If the other goes before, it
// does: without an agent in charge no pod of the node starts, and the former proxy listens until this one serves all.
func (a *Agent) takeCharge(ctx context.Context) error {
	for range 2 { // others may just be looking who is in charge
		if took, err := a.charge.Take(); took || err != nil {
			return err
		}
		if !wake.After(ctx, chargeEvery) {
			return ctx.Err()
		}
	}
	a.opts.Log.Info("another agent is in charge of this node's pods; preparing to take over")
	next, alone := time.Time{}, time.Now()
	for ready := false; ; {
		if now := time.Now(); now.After(next) {
			next = now.Add(shadowEvery)
			err := a.shadow(ctx)
			a.readiness.lacks(err)
			ready = err == nil
		}
		if _, taken, err := a.charge.Other(); taken || err != nil {
			alone = time.Now()
		}
		if ready || time.Since(alone) > a.opts.waits.crash {
			if took, err := a.charge.Take(); took || err != nil {
				return err
			}
		}
		if !wake.After(ctx, chargeEvery) {
			return ctx.Err()
		}
	}
}

// shadow returns nil when the proxy serves all that is captured.
func (a *Agent) shadow(ctx context.Context) error {
	if err := a.pods.Shadow(ctx); err != nil {
		return err
	}
	a.opts.Proxy.LocalReady(xds.TypeListener)
	return a.servesAll(ctx)
}

func (a *Agent) servesAll(ctx context.Context) error {
	if err := a.opts.Envoy.Ready(ctx); err != nil {
		return err
	}
	listening, err := a.opts.Envoy.Listening(ctx)
	if err != nil {
		return err
	}
	unserved, err := a.pods.Unserved(ctx, listening)
	if err != nil || len(unserved) == 0 {
		return err
	}
	what := strings.Join(unserved[:min(len(unserved), namedPods)], ", ")
	if more := len(unserved) - namedPods; more > 0 {
		what += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("it doesn't listen in %s", what)
}

// announce tells the agent that was in charge before when its proxy isn't needed any longer.
func (a *Agent) announce(ctx context.Context) error {
	for {
		err := a.servesAll(ctx)
		if err == nil {
			err = a.charge.Say(charge.Serves)
		}
		if err == nil {
			a.readiness.lacks(nil)
			break
		}
		a.opts.Log.V(1).Info("the proxy doesn't serve all captured pods yet", "reason", err.Error())
		if !wake.After(ctx, shadowEvery) {
			return nil
		}
	}
	if wake.After(ctx, 2*a.opts.waits.closed) { // it has heard of it by then, and closed its listeners
		a.pods.Former(false)
	}
	return nil
}

// handOver leaves the pods to another agent, if there is one. It returns when no connection needs the proxy beside this
// one any longer.
func (a *Agent) handOver(ctx context.Context) error {
	a.pods.DropWaypoints()
	a.opts.Proxy.KeepSnapshot(false)
	if err := a.charge.Give(); err != nil {
		return err
	}
	if a.opts.Drain <= 0 || a.comesBack(ctx) {
		a.opts.Log.Info("the agent stops; pods stay captured")
		return nil
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, a.opts.Drain)
	defer cancel()
	a.watchOn(ctx) // before anybody can know that this agent goes, and take its rights for that
	var patience time.Duration
	switch aside := a.stepAside(ctx); {
	case aside:
		patience = a.opts.waits.successor
	case a.others(ctx):
		patience = a.opts.waits.crash
	default:
		return a.leaveLast(whole) // its rights may have been taken just now
	}
	a.opts.Log.Info("another agent is to take over; the proxy listens until that one's does")
	if !a.until(ctx, patience, chargeEvery, a.succeeded) {
		return a.leaveLast(whole)
	}
	a.closeListeners(ctx)
	a.until(ctx, patience, drainEvery, a.idle(ctx))
	return nil
}

// watchOn has what an uninstallation takes before the agent's rights watched on: the agent's other watches have ended.
func (a *Agent) watchOn(ctx context.Context) {
	config, scheme := a.manager.GetConfig(), a.manager.GetScheme()
	seen, err := cache.New(config, cache.Options{Scheme: scheme, ByObject: map[client.Object]cache.ByObject{
		&corev1.ServiceAccount{}: ownAccount(a.opts.SystemNamespace),
		&corev1.Namespace{}:      {Field: fields.OneTermEqualSelector("metadata.name", a.opts.SystemNamespace)},
	}})
	if err == nil {
		go func() { _ = seen.Start(ctx) }() // it ends with its context alone
		patience, cancel := context.WithTimeout(ctx, liveTimeout)
		defer cancel()
		err = a.uninstall.watch(patience, seen)
	}
	if err != nil {
		a.opts.Log.Info("the agent may not notice an uninstallation while it waits for another one", "reason", err.Error())
	}
}

// leaveLast takes the mesh off the node if it was uninstalled after this agent was told to stop and before another one
// was there to take over: there is nobody else who could.
func (a *Agent) leaveLast(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if w, taken, err := a.charge.Other(); err != nil || taken || w.State == charge.Left {
		return err
	}
	leaving, why := a.uninstall.leaving(ctx)
	if !leaving {
		a.opts.Log.Info("the agent stops; pods stay captured")
		return nil
	}
	if took, err := a.charge.Take(); err != nil || !took {
		return err
	}
	return a.leave(ctx, why)
}

// idle tells whether the proxy has no connection left, once it has counted them since it was asked first. A count may
// have been under way then, so it is the second one after. A proxy that died has none; its pod ends, so it isn't
// started anew.
func (a *Agent) idle(ctx context.Context) func() bool {
	counts, last := 0, 0
	return func() bool {
		c, err := a.opts.Envoy.Connections(ctx)
		if admin.Gone(err) {
			a.opts.Log.Info("the proxy is gone, and its connections with it", "reason", err.Error())
			return true
		}
		if err != nil {
			a.opts.Log.V(1).Info("the proxy doesn't say whether it has connections", "reason", err.Error())
			return false
		}
		if c.At < last {
			a.opts.Log.Info("the proxy was started anew, and what drained is gone")
			return true
		}
		if c.At != last {
			counts, last = counts+1, c.At
		}
		return counts > 2 && c.Open == 0
	}
}

// comesBack tells whether the agent is told to stop without its pod being deleted, as when its container alone is
// started anew, or the node shuts down. In the first case the proxy goes on, and must not stop listening; and a pod
// that stepped aside and isn't deleted would stay for good.
func (a *Agent) comesBack(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	key := types.NamespacedName{Namespace: a.opts.SystemNamespace, Name: a.opts.PodName}
	pod, err := readPod(ctx, a.uninstall.client, key, a.opts.NodeName)
	return err == nil && string(pod.UID) == a.opts.PodUID && pod.DeletionTimestamp.IsZero()
}

// stepAside has the DaemonSet make another pod for this node, if it hasn't. It makes none beside one of its own that
// ends.
func (a *Agent) stepAside(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	own := types.NamespacedName{Namespace: a.opts.SystemNamespace, Name: a.opts.PodName}
	if err := status.Relabel(ctx, a.uninstall.client, own, names.LabelComponent, names.ComponentNode,
		names.ComponentNodeDraining); err != nil {
		a.opts.Log.Info("the DaemonSet may make no other pod for this node before this one has ended", "reason", err.Error())
		return false
	}
	return true
}

// until waits for something to be so and tells whether it came to that. It gives up when the time is over, when the
// mesh left the node, and when for longer than it has patience there has been no agent in charge, nor one that may be.
func (a *Agent) until(ctx context.Context, patience, every time.Duration, so func() bool) bool {
	for alone := time.Now(); !so(); {
		w, taken, err := a.charge.Other()
		switch {
		case err != nil:
			a.opts.Log.Error(err, "it isn't known who is in charge of this node's pods")
		case w.State == charge.Left:
			a.opts.Log.Info("the mesh left this node; the proxy ends with its connections")
			return false
		case taken:
			alone = time.Now()
		case time.Since(alone) > patience:
			if alone = time.Now(); !a.others(ctx) {
				a.opts.Log.Info("there is no other agent; the proxy ends with its connections")
				return false
			}
		}
		if !wake.After(ctx, every) {
			a.opts.Log.Info("the time is over; the proxy ends with its connections")
			return false
		}
	}
	return true
}

// succeeded tells whether another agent is in charge whose proxy serves all pods.
func (a *Agent) succeeded() bool {
	w, taken, err := a.charge.Other()
	return err == nil && taken && w.State == charge.Serves
}

// others tells whether another agent of the node may take over, or has.
func (a *Agent) others(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	list := &corev1.PodList{}
	err := a.uninstall.client.List(ctx, list, client.InNamespace(a.opts.SystemNamespace),
		client.MatchingFields{fieldNode: a.opts.NodeName}, client.MatchingLabels{names.LabelComponent: names.ComponentNode})
	if err != nil {
		_, taken, _ := a.charge.Other()
		a.opts.Log.Info("the API server doesn't say whether there is another agent on this node", "reason", err.Error(),
			"inCharge", taken)
		return taken
	}
	return slices.ContainsFunc(list.Items, func(pod corev1.Pod) bool {
		return pod.Name != a.opts.PodName && pod.DeletionTimestamp.IsZero() && takesCharge(&pod)
	})
}

// takesCharge tells agents from those of versions before there was a charge, which need not be waited for.
func takesCharge(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool {
		return g.ConditionType == v1alpha1.PodConditionServing
	})
}

// closeListeners of the proxy, and wait until the proxy has done it. What the kernel has accepted for them and they
// haven't taken goes to the other proxy's.
func (a *Agent) closeListeners(ctx context.Context) {
	failed := error(nil)
	was := map[string]string{}
	for _, s := range a.pods.Snapshot() {
		if s.Netns == "" {
			continue
		}
		former, err := a.opts.kernel.MigrateQueues(s.Netns, "1")
		if err == nil {
			was[s.Netns] = former
		} else if !netns.Gone(err) {
			failed = err
		}
	}
	if failed != nil {
		a.opts.Log.Error(failed, "connections that come at the very moment when the proxy's listeners close may be reset: "+
			"that requires Linux 5.14, and permission to set a parameter of pods' network namespaces")
	}
	if err := a.opts.Envoy.CloseListeners(ctx); err != nil {
		a.opts.Log.Error(err, "the proxy goes on taking connections beside the one that took over")
	} else {
		a.opts.Log.Info("the proxy's listeners are closed; it ends with its last connection")
	}
	wake.After(ctx, a.opts.waits.closed)
	for path, former := range was {
		_, _ = a.opts.kernel.MigrateQueues(path, former) // it could be set, so it fails only for those that are gone
	}
}
