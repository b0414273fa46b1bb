// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/cni"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/pods"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// uninstaller takes the mesh off the node.
type uninstaller struct {
	client    client.Client // not cached: it asks how things stand when the agent stops
	cached    client.Reader // what the agent saw last while it had its rights
	kernel    nodeKernel
	statuses  func() []pods.Status
	installer *cni.Installer
	log       logr.Logger
	node      string
	system    string
	netnsDir  string
	files     []string
}

// leaving tells, when the agent is told to stop, whether the mesh leaves this node for good, and why. A restart, an
// upgrade, an API server that doesn't answer or one that refuses to is no such case: then everything stays, since
// captured pods that lost their proxy for a moment are better than pods that lost their protection. An uninstallation
// takes the agent's rights as well, but not before the agent saw the Mesh, its own namespace or its own service account
// go: a watch that runs outlives the rights to it.
func (u *uninstaller) leaving(ctx context.Context) (bool, string) {
	ds := &appsv1.DaemonSet{}
	err := u.client.Get(ctx, types.NamespacedName{Namespace: u.system, Name: names.NodeDaemonSet}, ds)
	switch {
	case apierrors.IsNotFound(err):
		return true, "DaemonSet " + names.NodeDaemonSet + " is gone"
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		why := u.sawGo(ctx)
		if why == "" {
			u.log.Info("the API server refuses to say whether the mesh is being uninstalled; pods stay captured", "reason",
				err.Error())
		}
		return why != "", why
	case err != nil:
		u.log.Info("the API server doesn't say whether the mesh is being uninstalled; pods stay captured", "reason",
			err.Error())
		return false, ""
	case !ds.DeletionTimestamp.IsZero():
		return true, "DaemonSet " + names.NodeDaemonSet + " is being deleted"
	}
	// Kubernetes takes the pods of a namespace before anything else of it (KEP-5080), the DaemonSet among that.
	ns := &corev1.Namespace{}
	if err := u.client.Get(ctx, types.NamespacedName{Name: u.system}, ns); err == nil && !ns.DeletionTimestamp.IsZero() {
		return true, "namespace " + u.system + " is being deleted"
	}
	node := &corev1.Node{}
	if err := u.client.Get(ctx, types.NamespacedName{Name: u.node}, node); err != nil {
		return false, ""
	}
	if !labels.SelectorFromSet(ds.Spec.Template.Spec.NodeSelector).Matches(labels.Set(node.Labels)) {
		return true, "the Mesh's nodeSelector no longer selects this node"
	}
	return false, ""
}

// running is what a running mesh has, and an uninstallation takes.
func (u *uninstaller) running() map[string]client.Object {
	return map[string]client.Object{
		"Mesh " + names.Mesh:    &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}},
		"namespace " + u.system: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: u.system}},
		"service account " + names.NodeServiceAccount: &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Namespace: u.system, Name: names.NodeServiceAccount},
		},
	}
}

// watch has that watched by another cache from now on, which runs.
func (u *uninstaller) watch(ctx context.Context, by cache.Cache) error {
	for what, o := range u.running() {
		if _, err := by.GetInformer(ctx, o); err != nil {
			return fmt.Errorf("watch %s: %w", what, err)
		}
	}
	u.cached = by
	return nil
}

// sawGo says what the agent saw go that a running mesh has; empty if nothing.
func (u *uninstaller) sawGo(ctx context.Context) string {
	for what, o := range u.running() {
		err := u.cached.Get(ctx, client.ObjectKeyFromObject(o), o)
		if apierrors.IsNotFound(err) || err == nil && !o.GetDeletionTimestamp().IsZero() {
			return what + " is gone or being deleted, and the agent's rights with it"
		}
	}
	return ""
}

// uninstall leaves every pod uncaptured and working, and nothing of ours on the node.
func (u *uninstaller) uninstall(ctx context.Context) error {
	var failed []error
	// First the plugin, so that no pod that starts now waits for an agent that goes.
	if u.installer != nil {
		failed = append(failed, u.installer.Uninstall())
	}
	var wg sync.WaitGroup
	for _, path := range netns.List(u.netnsDir) {
		wg.Go(func() {
			if has, err := u.kernel.Has(path); err != nil || !has {
				return
			}
			if err := u.kernel.Remove(path); err != nil && !netns.Gone(err) {
				u.log.Error(err, "failed to remove the rules in a pod's network namespace", "netns", path)
			}
		})
	}
	wg.Wait()
	failed = append(failed, u.kernel.RemoveHost())
	for _, f := range u.files {
		failed = append(failed, removeFile(f))
	}
	for _, s := range u.statuses() {
		if err := u.uncondition(ctx, s); err != nil {
			// Without rights that is to be expected; the operator ignores the condition where no node proxy runs.
			u.log.V(1).Info("failed to reset a pod's condition", "pod", s.Namespace+"/"+s.Name, "reason", err.Error())
			break
		}
	}
	return errors.Join(failed...)
}

func (u *uninstaller) uncondition(ctx context.Context, s pods.Status) error {
	pod, err := readPod(ctx, u.client, types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, u.node)
	if apierrors.IsNotFound(err) || err == nil && (string(pod.UID) != s.UID || !member.Captured(pod)) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = pods.WriteCondition(ctx, u.client, pod, v1alpha1.PodConditionCaptured, corev1.ConditionFalse,
		v1alpha1.PodReasonUninstalled,
		"Not captured: the mesh was removed from this node.")
	return err
}
