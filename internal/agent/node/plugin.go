// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/pods"
	"github.com/fairway-mesh/fairway/internal/conditions"
)

// pluginRetry is the wait before the condition is written again after that failed.
const pluginRetry = 5 * time.Second

// pluginReport says on the agent's own pod whether the CNI plugin is in place: without it every pod of the mesh starts
// uncaptured, which nobody else could notice.
type pluginReport struct {
	client  client.Client
	events  events.EventRecorder
	pod     types.NamespacedName
	confDir string
	log     logr.Logger
	// latest holds the outcome of the last attempt that is not reported yet.
	latest chan error
}

// note takes the outcome of an attempt in; it never waits.
func (p *pluginReport) note(err error) {
	select {
	case <-p.latest: //nolint:errcheck // an outcome that is replaced by a newer one
	default:
	}
	select {
	case p.latest <- err:
	default: // another is newer
	}
}

// run reports until the context ends.
func (p *pluginReport) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case outcome := <-p.latest:
			if err := p.report(ctx, outcome); err != nil {
				p.log.Info("the condition of the agent's pod can't be set, trying again", "reason", err.Error())
				select {
				case <-ctx.Done():
				case <-time.After(pluginRetry):
				}
				select {
				case p.latest <- outcome:
				default: // a newer one is there
				}
			}
		}
	}
}

func (p *pluginReport) report(ctx context.Context, outcome error) error {
	is, reason, message := corev1.ConditionTrue, v1alpha1.PodReasonInstalled, "Pods of the mesh start captured."
	if outcome != nil {
		is, reason = corev1.ConditionFalse, v1alpha1.PodReasonInstallFailed
		message = fmt.Sprintf("The CNI plugin is not installed, so pods of the mesh start uncaptured: %v (in %s; if this "+
			"node's container runtime reads another directory, set spec.node.host of the Mesh).", outcome, p.confDir)
	}
	pod := &corev1.Pod{}
	if err := p.client.Get(ctx, p.pod, pod); err != nil {
		return err
	}
	written, err := pods.WriteCondition(ctx, p.client, pod, v1alpha1.PodConditionPluginInstalled, is, reason, message)
	if err == nil && written && outcome != nil {
		p.events.Eventf(pod, nil, corev1.EventTypeWarning, reason, "Install", "%s", conditions.Note(message))
	}
	return err
}
