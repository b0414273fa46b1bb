// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

// MergeParameters lays a Gateway's parameters over those of its GatewayClass: what the Gateway's set wins, field by
// field. Fields that exclude each other (replicas and autoscaling) count as one. Either may be nil.
func MergeParameters(class, gateway *v1alpha1.ProxyParameters) v1alpha1.ProxyParametersSpec {
	var out v1alpha1.ProxyParametersSpec
	if class != nil {
		out = *class.Spec.DeepCopy()
	}
	if gateway == nil {
		return out
	}
	g := gateway.Spec.DeepCopy()
	if g.Replicas != nil || g.Autoscaling != nil {
		out.Replicas, out.Autoscaling = g.Replicas, g.Autoscaling
	}
	if g.Images != nil {
		out.Images = &v1alpha1.Images{
			Envoy:       g.Images.EnvoyOr(out.Images.EnvoyOr("")),
			PullSecrets: g.Images.PullSecretsOr(out.Images.PullSecretsOr(nil)),
		}
	}
	override(&out.DisruptionBudget, g.DisruptionBudget)
	override(&out.Resources, g.Resources)
	override(&out.AgentResources, g.AgentResources)
	override(&out.Affinity, g.Affinity)
	override(&out.Concurrency, g.Concurrency)
	override(&out.HeaderLimits, g.HeaderLimits)
	override(&out.DrainTimeout, g.DrainTimeout)
	override(&out.TerminationGracePeriod, g.TerminationGracePeriod)
	if g.NodeSelector != nil {
		out.NodeSelector = g.NodeSelector
	}
	if g.Tolerations != nil {
		out.Tolerations = g.Tolerations
	}
	if g.TopologySpreadConstraints != nil {
		out.TopologySpreadConstraints = g.TopologySpreadConstraints
	}
	out.TrafficDistribution = cmp.Or(g.TrafficDistribution, out.TrafficDistribution)
	if g.PriorityClassName != "" {
		out.PriorityClassName = g.PriorityClassName
	}
	if g.LogLevel != "" {
		out.LogLevel = g.LogLevel
	}
	out.PodLabels = merged(out.PodLabels, g.PodLabels)
	out.PodAnnotations = merged(out.PodAnnotations, g.PodAnnotations)
	return out
}

func override[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

// drain is how long a proxy drains and when it is killed, in whole seconds. Each object's own CEL keeps the first below
// the second; a class's and a Gateway's together may not, so the grace period follows the drain timeout here.
func drain(p *v1alpha1.ProxyParametersSpec) (drainSeconds, graceSeconds int64) {
	d := v1alpha1.DefaultDrainTimeout
	if p.DrainTimeout != nil {
		d = p.DrainTimeout.Duration
	}
	g := d + v1alpha1.DefaultGraceAfterDrain
	if p.TerminationGracePeriod != nil && p.TerminationGracePeriod.Duration > d {
		g = p.TerminationGracePeriod.Duration
	}
	return int64(d.Round(time.Second) / time.Second), int64(g.Round(time.Second) / time.Second)
}

// spread is the default topology spread: over zones and nodes where that is possible.
func spread() []corev1.TopologySpreadConstraint {
	out := make([]corev1.TopologySpreadConstraint, 0, 2)
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
		out = append(out, corev1.TopologySpreadConstraint{
			MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.ScheduleAnyway,
			MatchLabelKeys: []string{"pod-template-hash"},
		})
	}
	return out
}
